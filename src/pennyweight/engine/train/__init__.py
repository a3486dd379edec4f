"""The training loop, the objective, the optimizers and checkpoints."""
