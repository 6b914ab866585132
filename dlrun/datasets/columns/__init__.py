"""Columns of a table: their kinds, what is asked about them, and their encoding as inputs of a model."""
