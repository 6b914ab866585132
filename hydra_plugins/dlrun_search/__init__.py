"""The sweeper `optuna`: what Hydra sees of it."""
