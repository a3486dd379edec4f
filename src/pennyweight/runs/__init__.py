"""Runs: the typed record, the directory, its lock, and the rules of resuming."""
