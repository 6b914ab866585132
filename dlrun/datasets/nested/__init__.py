"""Data sets whose inputs or targets are several tensors, or of several lengths."""
