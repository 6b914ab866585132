"""A first layer that whitens patches of images (T. Jaboulay 2023, tysam-code/hlb-CIFAR10; Jordan 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Whitening(nn.Conv2d):
    """A convolution with fixed filters: the eigenvectors of the covariance of patches, over its root, and their
    negatives.

    x [N, C, H, W] ↦ [N, 2·C·k², H-k+1, W-k+1] with k the `kernel_size`. The filters get their values from
    `init_from_inputs`, once, before the first step; only the bias is learned. On the inputs that they were made of,
    the outputs are uncorrelated and of variance λ / (λ + `eps`), with λ the variance along an eigenvector.

    >>> torch.manual_seed(0).initial_seed()
    0
    >>> layer, x = Whitening(3), torch.randn(50, 3, 9, 9) * 2
    >>> layer.init_from_inputs(x)
    >>> first = (layer(x) - layer.bias.view(1, -1, 1, 1))[:, :12].transpose(0, 1).flatten(1)
    >>> bool(((first @ first.T / first.shape[1]) - torch.eye(12)).abs().max() < 0.01)
    True
    """

    def __init__(self, channels: int, *, kernel_size: int = 2, eps: float = 5e-4) -> None:
        super().__init__(channels, 2 * channels * kernel_size**2, kernel_size)
        self.weight.requires_grad_(False)
        self.eps = eps

    @torch.no_grad()
    def init_from_inputs(self, x: Tensor) -> None:
        """Make the filters from images x [N, C, H, W]."""
        height, width = self.kernel_size
        patches = x.float().unfold(2, height, 1).unfold(3, width, 1)  # [N, C, H', W', k, k]
        flat = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
        # the second moments about zero: the inputs have the mean zero
        values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
        filters = (vectors / torch.sqrt(values + self.eps)).T.reshape(-1, *patches.shape[1:2], height, width)
        self.weight.copy_(torch.cat([filters, -filters]))
