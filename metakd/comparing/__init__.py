"""Comparisons of runs: their settings, results and paired differences on the same tasks."""
