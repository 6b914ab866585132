"""Figures as pure functions: plain numbers in, a `matplotlib.figure.Figure` out. None reads a run."""
