"""Models of lungmask, applied as lungmask applies them: `cleaning`, and `runtime` (the call)."""
