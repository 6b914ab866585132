"""Processes for jobs: slots, a fork server, workers, and the screen meanwhile."""
