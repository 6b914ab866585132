"""A model's parameters: their kinds, and the norms of their gradients."""
