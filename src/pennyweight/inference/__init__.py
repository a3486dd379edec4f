"""Inference: everything that uses a finished run."""
