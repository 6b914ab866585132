"""Image generation: a variational auto-encoder (Kingma and Welling 2013, arXiv:1312.6114).

A GAN has two objectives with two optimizers that take turns, which is another loop than dlrun's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.nests.batch import Batch


class VAE(nn.Module):
    """Binary pixels from `latent` normal variables; both networks have one hidden layer.

    x [B, C, H, W] ↦ what the loss takes: the logits of the pixels for a drawn z, the mean and the log of the variance
    of q(z | x). `log_prob` is the lower bound of log p(x) by `draws` weighted samples (Burda et al. 2015).
    """

    def __init__(self, input_shape: tuple[int, ...], latent: int = 8, width: int = 256, draws: int = 16) -> None:
        super().__init__()
        pixels = torch.Size(input_shape).numel()
        self.shape, self.latent, self.draws = input_shape, latent, draws
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 2 * latent))
        self.decode = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, pixels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encode(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decode(z), mean, log_variance

    def log_prob(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encode(x).chunk(2, dim=1)
        # the same draws at each evaluation
        draw = torch.Generator().manual_seed(0)
        noise = torch.randn(self.draws, 1, self.latent, generator=draw).to(x.device)
        z = mean + noise * (log_variance / 2).exp()
        log_q = (-0.5 * noise.square() - log_variance / 2).sum(-1)
        log_prior = -0.5 * z.square().sum(-1)
        log_pixels = -_nats(self.decode(z), x.flatten(1).expand(self.draws, -1, -1))
        return torch.logsumexp(log_pixels + log_prior - log_q, dim=0) - math.log(self.draws)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` pictures of the pixels' probabilities."""
        z = torch.randn(n, self.latent, generator=generator)
        return self.decode(z.to(self.decode[0].weight)).sigmoid().view(n, *self.shape)


def elbo(model: VAE, batch: Batch) -> Tensor:
    """The negative evidence lower bound, in nats an image, [B]; evaluated by the closer bound of `log_prob`."""
    if not torch.is_grad_enabled():
        return -model.log_prob(batch.x)
    logits, mean, log_variance = model(batch.x)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return _nats(logits, batch.x.flatten(1)) + divergence


elbo.task = "density"


def _nats(logits: Tensor, pixels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(-1)
