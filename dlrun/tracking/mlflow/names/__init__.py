"""Addresses, names and values, as MLflow takes them."""
