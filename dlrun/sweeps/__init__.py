"""Many runs: a sweep's jobs decided, run, selected among, tested and reported."""
