"""Samples in files that a person gives to a trained run, beside those that it learned from."""
