"""Claims checked against finished runs, and the figures that show them; only a study reads a run's folder."""
