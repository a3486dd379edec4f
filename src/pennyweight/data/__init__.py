"""Rows in: read, cleaned, split, checked for leaks. Kept empty, so that one part loads alone."""
