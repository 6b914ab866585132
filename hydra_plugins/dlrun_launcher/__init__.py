"""The launcher `local`: what Hydra sees of it."""
