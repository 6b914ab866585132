"""The server that shows MLflow's pages on this machine."""
