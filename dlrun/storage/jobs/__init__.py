"""The jobs of a sweep: one, and which of them can be ranked."""
