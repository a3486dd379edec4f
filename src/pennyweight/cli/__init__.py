"""The command line: one short file per command, which parses, calls one function and prints."""

from pennyweight.cli.main import main

__all__ = ["main"]
