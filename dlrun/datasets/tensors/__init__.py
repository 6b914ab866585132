"""Data sets as tensors: splits, scale, augmentation, fingerprint."""
