"""Search with Optuna: what a sweep runs next depends on what came of it so far."""
