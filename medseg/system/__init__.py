"""Access to the machine: memory, files, worker processes, untrusted text and notices."""
