"""Gradients: how they travel through layers, and the paths that they lead along."""
