"""Benchmarks of dlrun: small scripts, run alone (`python -m benchmarks.step`) or together (`make bench`)."""
