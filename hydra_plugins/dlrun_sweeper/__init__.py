"""The sweeper `grid`: what Hydra sees of it."""
