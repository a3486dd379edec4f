"""Runs: one directory each, with one record that everything later reads."""
