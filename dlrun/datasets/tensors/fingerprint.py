"""The fingerprint of a data set: equal for runs on the same samples."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def fingerprint(*parts: str | Tensor) -> str:
    """The SHA-256 of texts and tensors, in their order.

    A tensor counts by its values, type and shape.

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
    # as bytes: numpy lacks some types of torch, such as bfloat16
    return flat.view(torch.uint8).numpy().data
