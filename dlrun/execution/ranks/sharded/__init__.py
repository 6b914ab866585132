"""FSDP: each process keeps a part of every weight, of its gradient and of the optimizer's state."""
