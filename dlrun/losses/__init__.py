"""Losses: a file each, a function of a model and a batch."""
