"""Pictures of one's own: found, framed, cut into splits, decoded once or read in each epoch."""
