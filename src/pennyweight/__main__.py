"""`python -m pennyweight`, which is also how torchrun starts a training."""

from pennyweight.cli import main

main()
