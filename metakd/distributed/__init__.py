"""Several processes on one run (torchrun): who takes part, and what travels between them."""
