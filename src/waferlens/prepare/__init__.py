"""What happens between a file and a network, the same for training and inspection."""
