"""Sweepers with a list of jobs, a file each. Thin: every start of Hydra imports them."""
