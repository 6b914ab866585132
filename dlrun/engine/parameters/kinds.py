"""The kinds of a model's tensors: what weight decay acts on, what Muon makes orthogonal, what norms keep of inputs.

A kind follows from the module that has the parameter and from its name. The number of axes alone does not tell it: a
norm over pictures scales by [C, H, W], and a bias may have a value for each place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# norms of one's own are classes of such names: LayerNorm2d, LlamaRMSNorm, ChannelNorm
_NORM_NAME = re.compile(r"Norm(\d[dD])?$")


def matrices(model: nn.Module) -> set[int]:
    """The `id`s of the matrices and kernels, embeddings among them.

    They are the parameters with two axes or more, without those of norms and without biases.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm([4, 6, 6]), nn.Flatten(), nn.Linear(144, 2))
    >>> matrices(model) == {id(model[0].weight), id(model[3].weight)}
    True
    """
    return {id(p) for module in model.modules() for p in _matrices_of(module)}


def hidden_matrices(model: nn.Module) -> set[int]:
    """The `id`s of the matrices within the network.

    They are the matrices and kernels without those of embeddings and the head. The head is the last module, in the
    order of definition, with a matrix of its own. Weights tied to an embedding are the embedding's.

    >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 9))
    >>> hidden_matrices(model) == {id(model[1].weight)}
    True
    """
    of_module = {m: {id(p) for p in _matrices_of(m)} for m in model.modules()}
    embeddings = {i for m, ids in of_module.items() if isinstance(m, nn.Embedding | nn.EmbeddingBag) for i in ids}
    head = next((ids for ids in reversed(of_module.values()) if ids), set())
    return set().union(*of_module.values()) - embeddings - head


def norm_statistics(model: nn.Module) -> list[Tensor]:
    """The running means and variances that norms keep of their inputs.

    >>> [s.shape for s in norm_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)))]
    [torch.Size([4]), torch.Size([4])]
    """
    return [
        buffer
        for module in model.modules()
        if _is_norm(module)
        for name, buffer in module.named_buffers(recurse=False)
        # one that is not saved is made anew by the model: it follows no batch
        if buffer.is_floating_point() and name not in module._non_persistent_buffers_set
    ]


def norms_with_statistics(model: nn.Module) -> dict[nn.Module, list[str]]:
    """The norms that keep statistics of the batches, with the full names of these.

    >>> norms_with_statistics(nn.Sequential(nn.BatchNorm1d(3), nn.LayerNorm(3))).popitem()[1]
    ['0.running_mean', '0.running_var', '0.num_batches_tracked']
    """
    found = {}
    for name, module in model.named_modules():
        buffers = [key for key, _ in module.named_buffers(name, recurse=False)]
        if buffers and _is_norm(module):
            found[module] = buffers
    return found


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) or bool(_NORM_NAME.search(type(module).__name__))


def _matrices_of(module: nn.Module) -> Iterator[Tensor]:
    """The matrices and kernels that a module has itself."""
    if _is_norm(module):
        return
    for name, p in module.named_parameters(recurse=False):
        if p.ndim >= 2 and "bias" not in name.split("_"):
            yield p
