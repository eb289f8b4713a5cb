"""Models of nnU-Net v2, applied as nnU-Net applies them: `windows`, `restoring`, and `runtime` (the call)."""
