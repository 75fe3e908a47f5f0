"""Meta-algorithms, one a file; `algorithm.py` is their interface."""
