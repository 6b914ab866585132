"""Pairs of texts: read from files, encoded, padded batch by batch."""
