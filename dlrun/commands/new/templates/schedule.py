def my_part(step: int, steps: int, warmup: float = 0.1) -> float:
    """A linear warm-up, then a straight line down."""
    # the factor of the learning rate at a step, from 0 to steps - 1; `dlrun list schedule` draws it
    rise = (step + 1) / max(1, warmup * steps)
    fall = (steps - step) / (steps - warmup * steps)
    return min(rise, fall, 1)
