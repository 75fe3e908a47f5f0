"""The names of the splits of a dataset's classes."""

__all__ = ["SPLITS"]

SPLITS = ("train", "validate", "test")
"""Meta-train, meta-validation and meta-test."""
