"""The sweeper `search`: what Hydra sees of it."""
