"""Batches, the training loop, checkpoints and prediction; none of it knows recipes or runs."""
