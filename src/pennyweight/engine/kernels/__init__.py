"""Fast forward and backward passes for the modules of transformers and PEFT."""
