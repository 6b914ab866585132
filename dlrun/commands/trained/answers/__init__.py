"""A model's answers as rows, and the files that they are written to."""
