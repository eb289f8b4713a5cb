"""Memory, files and untrusted text: what medseg needs of the machine it runs on."""
