"""The weights that a run begins with, and what they have learned from."""
