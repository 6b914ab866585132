"""The state of a run's own parts that no model's state dict holds: found, saved, restored."""
