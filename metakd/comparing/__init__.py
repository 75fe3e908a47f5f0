"""Runs side by side: which there are, what differs, what each found, on the same tasks."""
