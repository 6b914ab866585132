"""What MLflow is told and what it says: addresses, names, values, logins, answers."""
