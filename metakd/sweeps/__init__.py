"""Multiruns: jobs, their processes and their status. Nothing here imports torch."""
