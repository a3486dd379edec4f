"""Run the command line with `python -m pennyweight`, as torchrun does."""

from pennyweight.cli import main

main()
