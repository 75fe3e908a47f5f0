"""Using a trained student: fit on a few examples of new classes, then predict."""
