"""Rules by which samples are split: at random, by class, by group, by time."""
