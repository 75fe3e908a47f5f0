"""Mirrors of a run elsewhere, and its progress on the terminal."""
