"""Losses of outputs and targets, `loss(outputs, y)`, called with a model and a batch."""
