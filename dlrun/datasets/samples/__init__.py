"""Data sets that are read sample by sample: `torch.utils.data.Dataset` and streams."""
