"""Objective, batches, plan, loop, evaluation and steps: pure PyTorch, without Hydra and MLflow."""
