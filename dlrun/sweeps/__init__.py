"""A sweep from what was asked to its end: slots, processes, jobs, selection."""
