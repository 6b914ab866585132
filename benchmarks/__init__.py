"""What dlrun costs, measured: small scripts that run alone (`python -m benchmarks.step`) or all together."""
