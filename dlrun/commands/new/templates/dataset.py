import torch

from dlrun.datasets import from_tensors
from dlrun.types import Data


def my_part(n: int = 1000, validation_size: int = 200, test_size: int = 200) -> Data:
    """Points in the plane: do they lie in a circle?"""
    # Your data go here, as tensors or numpy arrays. x: a row a sample; of images channels first, [N, 3, 32, 32].
    # y: classes are whole numbers from 0 on; numbers to predict have task="regression".
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(n, 2, generator=draw)
    y = (x.norm(dim=1) < 1.2).long()
    # dlrun draws the splits; the model gets its input shape and its number of classes from here
    return from_tensors(
        "my_part", (x, y), task="classification", validation_size=validation_size, test_size=test_size, normalise=True
    )
