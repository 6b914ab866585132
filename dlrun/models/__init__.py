"""Models: a file each, headed by its paper and what was changed."""
