"""Optimizers: rules (gradients in, changed parameters out), and steps by them."""
