"""The convolutional network for MNIST of F. Fleuret, Deep Learning in PyTorch (AMLD 2018), slide 42.

Changed: the first fully connected layer takes its size from the images, so sizes other than 28×28 work, and the widths
are arguments. With their defaults it is the net of the slide, layer by layer.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import ConfigError

__all__ = ["ConvNet"]


class ConvNet(nn.Module):
    """Convolutional network: x [N, C, H, W] ↦ outputs [N, O].

    Two 5×5 convolutions, pooled by 3 and by 2, and two dense layers. `channels` are the widths of the convolutions,
    `width` that of the hidden dense layer. On 28×28 grey images and 10 classes it has 105,506 parameters. Raises
    `ConfigError` for images below 22×22 pixels.

    >>> import torch
    >>> ConvNet((1, 28, 28), 10)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self, input_shape: tuple[int, ...], outputs: int, *, channels: tuple[int, int] = (32, 64), width: int = 200
    ) -> None:
        super().__init__()
        depth, height, breadth = image_shape(input_shape, smallest=22, model="convnet")
        first, second = channels
        # a 5×5 convolution without padding takes 4 pixels off a side, pooling divides it
        after = [((size - 4) // 3 - 4) // 2 for size in (height, breadth)]
        self.conv1 = nn.Conv2d(depth, first, kernel_size=5)
        self.conv2 = nn.Conv2d(first, second, kernel_size=5)
        self.fc1 = nn.Linear(second * after[0] * after[1], width)
        self.fc2 = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [N, O]."""
        x = F.relu(F.max_pool2d(self.conv1(x), kernel_size=3))
        x = F.relu(F.max_pool2d(self.conv2(x), kernel_size=2))
        x = F.relu(self.fc1(x.flatten(1)))
        outputs: Tensor = self.fc2(x)
        return outputs


def image_shape(input_shape: tuple[int, ...], *, smallest: int, model: str) -> tuple[int, int, int]:
    """The channels, height and width of images.

    Raises `ConfigError` for other inputs, and for images with a side below `smallest` pixels.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        none = " Of arrays without an axis of channels type dataset.channels=none." if len(input_shape) == 2 else ""
        raise ConfigError(
            f"model={model} needs images [channels, height, width] of at least {smallest}×{smallest} pixels; the"
            f" inputs of this data set have the shape {list(input_shape)}. Choose larger images, `dataset=mnist`, or"
            f" `model=mlp`.{none}"
        )
    channels, height, width = input_shape
    return channels, height, width
