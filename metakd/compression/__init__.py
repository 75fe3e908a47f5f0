"""Smaller networks: structured pruning and integers in place of real numbers."""
