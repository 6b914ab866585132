"""Searches with Optuna: each trial follows from the results of those before."""
