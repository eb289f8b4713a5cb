"""Decoders written in C, run in a process of their own so that a crash is a refusal."""
