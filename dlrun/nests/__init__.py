"""Batches, and the tuples and dicts of tensors that they hold."""
