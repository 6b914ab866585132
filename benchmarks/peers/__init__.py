"""What a person would use instead of dlrun, on the same work: programs of one file each.

Those that `benchmarks.worker` runs have a `train(work, watch)` and import nothing of dlrun, for they run in an
environment of their own; `works.py` has the work, `watch.py` the clock. The others are Hydra apps.
"""
