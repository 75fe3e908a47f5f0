"""A run's folder: its files, checkpoints and where it came from."""
