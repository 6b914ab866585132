"""Many jobs in one process: stacked where it is faster, one after another where it is not."""
