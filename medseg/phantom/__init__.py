"""A synthetic chest CT whose truth is known exactly, and the demonstration that uses it."""
