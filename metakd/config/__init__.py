"""From what a user types to a checked, typed configuration; imports no torch."""
