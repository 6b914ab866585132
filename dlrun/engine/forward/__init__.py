"""How an evaluation asks a model: each output once, averaged over views."""
