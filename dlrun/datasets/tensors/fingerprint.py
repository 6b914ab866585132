"""The fingerprint of a data set: equal for runs on the same samples."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def fingerprint(*parts: str | Tensor) -> str:
    """The SHA-256 of texts and tensors (values, type and shape), in their order.

    >>> fingerprint("a", torch.tensor([1])) == fingerprint("a", torch.tensor([1.0]))
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            head, body = f"{part.dtype} {list(part.shape)}", _bytes(part)
        else:
            head, body = "text", memoryview(part.encode())
        # the length first: ("ab", "c") and ("a", "bc") differ
        digest.update(f"{head} {body.nbytes}\n".encode())
        digest.update(body)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
