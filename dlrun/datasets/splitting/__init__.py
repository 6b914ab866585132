"""How samples are split: sizes, folds, and rules by class, by group, by time."""
