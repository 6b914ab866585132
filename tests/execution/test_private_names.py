"""The private names of torch that dlrun uses. Those of torch 2.13 are known: pyproject.toml allows no later minor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import dlrun
from tests.private_names import check_signature

KNOWN = "torch 2.13"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_compiler_is_called_as_ever() -> None:
    from torch._inductor import config

    # as `compiled` does: with more threads, the import starts a pool of processes
    with config.patch(size_asserts=False, compile_threads=1):
        from torch._inductor.compile_fx import compile_fx, compile_fx_inner
        from torch._inductor.decomposition import select_decomp_table
        from torch._inductor.lowering import make_fallback
    check_signature(compile_fx, "graph inputs inner_compile= decompositions=", known=KNOWN)
    check_signature(compile_fx_inner, "graph inputs", known=KNOWN)
    check_signature(make_fallback, "op warn= override_decomp=", known=KNOWN)
    # the one that `compiled` takes out, for two threads would add it up in any order
    assert torch.ops.aten.embedding_dense_backward.default in select_decomp_table()


def test_a_step_is_traced_as_ever() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    check_signature(make_fx, "step decomposition_table=", known=KNOWN)
    (argument, *_) = torch.ops.aten.mm.default._schema.arguments
    assert (argument.name, argument.default_value) == ("self", None)


def test_operators_are_seen_as_ever() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    check_signature(TorchDispatchMode.__torch_dispatch__, "self func types args= kwargs=", known=KNOWN)
    assert tree_leaves({"a": [1, (2,)], "b": 3}) == [1, 2, 3]
    assert torch._C._autograd.DeviceType.CPU.name == "CPU"


def test_dropouts_have_one_base() -> None:
    every = [layer for name, layer in vars(nn).items() if re.fullmatch(r"\w*Dropout\w*", name)]
    assert len(every) >= 6
    assert all(issubclass(layer, nn.modules.dropout._DropoutNd) for layer in every)


def test_many_tensors_are_updated_by_one_call() -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(dlrun.__file__).parent.rglob("*.py")]
    used = {name for source in sources for name in re.findall(r"torch\.(_(?:foreach|fused)_\w+)", source)}
    assert len(used) > 10
    assert not {name for name in used if not hasattr(torch, name)}, KNOWN
