"""How fast, not what: device, compiled steps, CUDA graphs, memory format, FLOPs, profiler."""
