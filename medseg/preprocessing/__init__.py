"""What happens to a scan before the network, in training and inference alike."""
