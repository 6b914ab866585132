"""What a run writes beside its journal while it trains, and takes up again: checkpoints, and its observers' state."""
