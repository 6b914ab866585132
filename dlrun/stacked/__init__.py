"""Many runs as one program: weights, losses, batches and updates with a leading axis of runs."""
