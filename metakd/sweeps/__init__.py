"""A multirun: its jobs, their processes, what became of them. Nothing here needs torch."""
