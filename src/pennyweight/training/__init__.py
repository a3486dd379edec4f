"""Training: one recipe made into one run, stage by stage."""
