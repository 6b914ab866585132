"""One run over several processes, each with a device: torchrun starts them, DDP adds up their gradients."""
