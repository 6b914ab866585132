"""The programs that a person would use instead of dlrun, on the same work, one file each.

Those that `benchmarks.worker` runs have a `train(work, watch)`. They run in an environment without dlrun, except
`ours` and `compiled`. `works.py` has the work, `watch.py` the clock; the other programs are Hydra apps.
"""
