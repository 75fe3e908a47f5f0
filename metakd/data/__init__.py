"""Datasets as tensors on the compute device, class splits, and the making of tasks from them."""
