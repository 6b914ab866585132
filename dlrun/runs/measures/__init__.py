"""What a run measures: its metrics, their directions and units."""
