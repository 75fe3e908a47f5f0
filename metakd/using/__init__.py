"""Using what was trained: a student that is shown a few examples of new classes and asked."""
