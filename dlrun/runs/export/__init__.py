"""A trained model for other programs: its graph and weights in a file."""
