"""A run's parts tried together before anything is trained: what does not fit fails here, with one message."""
