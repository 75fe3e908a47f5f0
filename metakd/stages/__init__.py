"""Stages of a run: training, evaluation, fine-tuning, with plain parameters."""
