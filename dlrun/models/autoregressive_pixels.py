"""PixelCNN: the probability of an image, pixel by pixel (van den Oord, Kalchbrenner, Kavukcuoglu 2016).

Pixel Recurrent Neural Networks, arXiv:1601.06759: p(x) = Π p(x_t | x_1 … x_{t-1}), rows first, by convolutions that see
the rows above and the pixels to the left. A mask of kind A hides the pixel itself, one of kind B does not. Changed:

- kernels have no rows below the pixel, which a mask would set to zero: two thirds of the work for a width of 3;
- a second input channel of ones, beside which the zeros around an image show where it ends;
- kernels of the blocks are dilated by 1, 2 and 4 in turn, so that six blocks see 17 rows;
- the sizes are of a network for a CPU.

As in the paper, a pixel far to the upper right is seen by no path (the blind spot of arXiv:1606.05328).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.models.convnet import image_shape

__all__ = ["AutoregressivePixels"]

LOGITS = 1 << 24
"""Logits computed at once without gradients, 64 MiB of float32."""


class CausalConv(nn.Module):
    """A convolution that sees the rows above and the pixels to the left: [N, C, H, W] ↦ [N, O, H, W].

    The kernel has `size` columns, and with the pixel's own row `size` // 2 + 1 rows. `strict` hides the pixel itself.
    """

    def __init__(self, channels: int, outputs: int, size: int, *, strict: bool = False, dilation: int = 1) -> None:
        super().__init__()
        # for its initial weights, which count the taps that a mask would hide as well
        conv = nn.Conv2d(channels, outputs, (size // 2 + 1, size))
        self.weight, self.bias = conv.weight, conv.bias
        mask = torch.ones(size // 2 + 1, size)
        mask[-1, size // 2 + (not strict) :] = 0
        self.register_buffer("mask", mask, persistent=False)
        self.dilation = dilation
        self.margins = (*(dilation * (size // 2),) * 3, 0)

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [N, O, H, W]."""
        return F.conv2d(F.pad(x, self.margins), self.weight * self.mask, self.bias, dilation=self.dilation)


class Block(nn.Module):
    """x + W₂·relu(causal(relu(W₁·relu(x)))) with half the channels within."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(2 * channels, channels, 1)
        self.causal = CausalConv(channels, channels, 3, dilation=dilation)
        self.wide = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, shaped as the inputs."""
        inner: Tensor = self.causal(F.relu(self.narrow(F.relu(x))))
        result: Tensor = x + self.wide(F.relu(inner))
        return result


class AutoregressivePixels(nn.Module):
    """PixelCNN of grey images: x [N, 1, H, W] ↦ log p(x) [N], in nats.

    A pixel has one of `levels` values, evenly spaced from 0 to 1; of others the nearest counts. There are `blocks`
    residual blocks of 2·`channels` channels, their kernels dilated by `dilations` in turn. Raises `ConfigError` for
    images in colour or without levels, and for numbers out of range.

    >>> AutoregressivePixels((1, 8, 8), levels=2, channels=4)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        levels: int | None,
        *,
        channels: int = 16,
        blocks: int = 6,
        first: int = 7,
        dilations: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.shape = image_shape(input_shape, smallest=1, model="autoregressive_pixels")
        if self.shape[0] != 1:
            raise ConfigError(
                f"model=autoregressive_pixels takes grey images; these have {self.shape[0]} channels. Choose others, "
                "as dataset=mnist."
            )
        if levels is None or levels < 2:
            raise ConfigError(
                "model=autoregressive_pixels takes pixels of a few values; these are of any size. Type "
                "dataset.binarise=threshold or stochastic, or dataset.normalise=false for all grey levels."
            )
        if channels < 1 or blocks < 0 or first < 3 or first % 2 == 0:
            raise ConfigError(
                f"model.channels={channels}, blocks={blocks}, first={first}: expected 1 or more channels, 0 or more "
                "blocks, and an odd first kernel from 3 on."
            )
        dilations = [1, 2, 4] if dilations is None else dilations
        if min(dilations, default=0) < 1:
            raise ConfigError(
                f"model.dilations={dilations}: expected numbers from 1 on, as in `model.dilations=[1,2]`."
            )
        self.levels = levels
        self.first = CausalConv(2, 2 * channels, first, strict=True)
        self.blocks = nn.Sequential(*(Block(channels, dilations[i % len(dilations)]) for i in range(blocks)))
        self.last = nn.Conv2d(2 * channels, 2 * channels, 1)
        # of two levels one logit: that of the upper
        self.head = nn.Conv2d(2 * channels, 1 if levels == 2 else levels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The log-probabilities [N]."""
        return self.log_prob(x)

    def logits(self, x: Tensor) -> Tensor:
        """The logits of each pixel's levels, given the pixels before it: [N, L, H, W], one of two levels."""
        features = self.blocks(self.first(torch.cat([x, torch.ones_like(x)], 1)))
        found: Tensor = self.head(F.relu(self.last(F.relu(features))))
        return found

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-probabilities [N]."""
        if torch.is_grad_enabled():
            return self._log_prob(x)
        # an evaluation's batch may have more logits than fit: 256 levels of 1,000 images of MNIST take 0.8 GB
        size = max(1, LOGITS // (self.levels * self.shape[1] * self.shape[2]))
        return torch.cat([self._log_prob(some) for some in torch.split(x, size)])

    def _log_prob(self, x: Tensor) -> Tensor:
        level = (x * (self.levels - 1)).round().clamp(0, self.levels - 1)
        logits = self.logits(level / (self.levels - 1))
        if self.levels == 2:
            each = F.binary_cross_entropy_with_logits(logits, level, reduction="none")
        else:
            each = F.cross_entropy(logits, level[:, 0].long(), reduction="none")
        return -each.flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` images, [n, 1, H, W], by a generator of the CPU; one pass a pixel."""
        device = self.head.weight.device
        x = torch.zeros(n, *self.shape, device=device)
        height, width = self.shape[1:]
        # all draws at once: those of an image do not depend on how the passes are cut
        draws = torch.rand(n, height, width, generator=generator).to(device)
        for row in range(height):
            for column in range(width):
                # the rows below are not seen
                logits = self.logits(x[:, :, : row + 1])[:, :, row, column]
                if self.levels == 2:
                    level = (draws[:, row, column] < logits[:, 0].sigmoid()).float()
                else:
                    below = logits.softmax(1).cumsum(1) < draws[:, row, column, None]
                    level = below.sum(1).clamp(max=self.levels - 1).float()
                x[:, 0, row, column] = level / (self.levels - 1)
        return x
