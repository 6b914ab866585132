"""How a run is written to MLflow."""
