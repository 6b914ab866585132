"""Optimizers: rules (gradients in, changed parameters out) and what makes a step of them."""
