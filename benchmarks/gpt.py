"""The GPT that language models are measured against, in the loop of nanoGPT (A. Karpathy, 2022).

Rewritten after github.com/karpathy/nanoGPT, model.py and train.py, for one process on a CPU: batches from random
places, AdamW with decay on matrices only, clipped gradients, the rate set at each step, the loss read every ten.
Evaluation and checkpoints are left out on both sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_EVERY = 10


@dataclass(frozen=True)
class Recipe:
    """The sizes and rates of nanoGPT's example for a CPU."""

    layers: int = 4
    heads: int = 4
    width: int = 128
    context: int = 64
    batch_size: int = 12
    lr: float = 1e-3
    floor: float = 0.1
    warmup: int = 100
    steps: int = 2000
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.1
    clip: float = 1.0


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.c_fc, self.c_out = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.c_attn(self.ln_1(x)).split(c, dim=2)
        q, k, v = (z.view(b, t, self.heads, c // self.heads).transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    """int64 [B, T] -> logits [B, T, V]."""

    def __init__(self, recipe: Recipe, vocabulary: int) -> None:
        super().__init__()
        width = recipe.width
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(recipe.context, width)
        self.h = nn.ModuleList(Block(width, recipe.heads) for _ in range(recipe.layers))
        self.ln_f = nn.LayerNorm(width, bias=False)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, p in self.named_parameters():
            if p.ndim == 2:
                into = name.endswith(("c_proj.weight", "c_out.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * recipe.layers) if into else 0.02)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1), device=idx.device))
        for block in self.h:
            x = block(x)
        scores: Tensor = self.lm_head(self.ln_f(x))
        return scores


def get_batch(data: Tensor, context: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """Windows [B, T] at random places, and the same shifted by one."""
    ix = torch.randint(len(data) - context, (batch_size,))
    x = torch.stack([data[i : i + context] for i in ix])
    return x, torch.stack([data[i + 1 : i + 1 + context] for i in ix])


def get_lr(it: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine."""
    if it < recipe.warmup:
        return recipe.lr * (it + 1) / (recipe.warmup + 1)
    progress = (it - recipe.warmup) / (recipe.steps - recipe.warmup)
    low = recipe.floor * recipe.lr
    return low + 0.5 * (1.0 + math.cos(math.pi * progress)) * (recipe.lr - low)


def train(model: nn.Module, data: Tensor, recipe: Recipe, steps: int) -> list[float]:
    """Train the first `steps` steps of the recipe; returns the losses that were read."""
    params = [*model.parameters()]
    groups = [
        {"params": [p for p in params if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2))
    x, y = get_batch(data, recipe.context, recipe.batch_size)
    losses = []
    for it in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = get_lr(it, recipe)
        scores = model(x)
        loss = F.cross_entropy(scores.view(-1, scores.size(-1)), y.view(-1))
        x, y = get_batch(data, recipe.context, recipe.batch_size)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if it % LOG_EVERY == 0:
            losses.append(loss.item())
    return losses
