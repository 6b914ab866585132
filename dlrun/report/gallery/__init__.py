"""One page of many sweeps: of each the command, the figures and the claims."""
