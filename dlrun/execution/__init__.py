"""Speed, not results: device, compiled steps, CUDA graphs, memory format, FLOPs, profiler."""
