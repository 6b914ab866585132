"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition).

The paper's layers and their sizes: C1 6@5×5, S2, C3 16@5×5, S4, C5 120, F6 84, 10 outputs; inputs
smaller than its 32×32, as the 28×28 of MNIST, are padded with zeros to that size. Changed:

- C3 sees all six maps of S2, the paper's a table of subsets of them (2,416 parameters for 1,516);
- S2 and S4 average without the paper's trainable gain and bias for each map, and without the
  sigmoid that followed; C1 and C3 are passed through tanh before them, as C5 and F6 are (the paper's
  1.7159·tanh(2x/3) is the same up to the scale of the weights);
- a linear output under cross-entropy, where the paper has Gaussian units to fixed codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.convnet import image_shape

__all__ = ["LeNet5"]

SIDE = 32  # pixels of the paper's inputs, to which smaller ones are padded


class LeNet5(nn.Module):
    """LeNet-5: x [N, C, H, W] ↦ outputs [N, O].

    On grey images of up to 32×32 pixels and 10 classes it has 61,706 parameters. Raises `ConfigError` for other inputs
    than images.

    >>> import torch
    >>> LeNet5((1, 28, 28), 10)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(self, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        depth, height, width = image_shape(input_shape, smallest=1, model="lenet5")
        rows, columns = max(SIDE - height, 0), max(SIDE - width, 0)
        self.padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        # sizes of the maps of S4: a 5×5 convolution takes 4 pixels off a side, pooling halves it, twice
        after = [((max(size, SIDE) - 4) // 2 - 4) // 2 for size in (height, width)]
        # named as in the paper; S2 and S4 have no parameters
        self.c1 = nn.Conv2d(depth, 6, kernel_size=5)
        self.c3 = nn.Conv2d(6, 16, kernel_size=5)
        self.c5 = nn.Linear(16 * after[0] * after[1], 120)  # the paper's 5×5 convolution of 5×5 maps is a dense layer
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [N, O]."""
        x = F.pad(x, self.padding)
        x = F.avg_pool2d(torch.tanh(self.c1(x)), kernel_size=2)
        x = F.avg_pool2d(torch.tanh(self.c3(x)), kernel_size=2)
        x = torch.tanh(self.c5(x.flatten(1)))
        x = torch.tanh(self.f6(x))
        outputs: Tensor = self.output(x)
        return outputs
