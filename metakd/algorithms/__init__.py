"""Meta-algorithms, one a file; what they are built from is in `metakd/adaptation/`."""
