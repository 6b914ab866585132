"""Adapters against the formula written out, and against PyTorch's own layers with the merged matrices."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dlrun.models.gpt import GPT
from dlrun.models.lora import LoraAttention, LoraLinear, adapt, adaptable, merge


def perturbed(model: nn.Module) -> None:
    """Move the matrices B away from zero, as training does."""
    g = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if name.endswith("_lora_b"):
            nn.init.normal_(p, std=0.3, generator=g)


def adapted(model: nn.Module, rank: int = 3, alpha: float = 6.0) -> nn.Module:
    for layer in adaptable(model).values():
        adapt(layer, rank, alpha, torch.Generator().manual_seed(0))
    return model


def test_a_linear_layer_has_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 4), torch.randn(7, 5)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    adapt(layer, rank=2, alpha=6.0)
    # B = 0: bit for bit the layer without an adapter
    assert torch.equal(layer(x), nn.functional.linear(x, weight, bias))
    perturbed(layer)
    a, b = (dict(layer.named_parameters())[f"weight_lora_{side}"].detach() for side in "ab")
    assert a.shape == (2, 5) and b.shape == (4, 2)
    expected = torch.stack([weight @ row + 6.0 / 2 * b @ (a @ row) + bias for row in x])
    torch.testing.assert_close(layer(x), expected)
    # what fused kernels read
    torch.testing.assert_close(layer.weight, weight + 3 * b @ a)


def test_only_the_adapter_has_a_gradient_and_it_is_the_chain_rules() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 4), torch.randn(7, 5)
    adapt(layer, rank=2, alpha=2.0)
    perturbed(layer)
    named = dict(layer.named_parameters())
    assert [name for name, p in named.items() if p.requires_grad] == ["bias", "weight_lora_a", "weight_lora_b"]
    out = layer(x)
    out.square().sum().backward()
    of_weight = (2 * out.detach()).T @ x  # of the merged matrix
    torch.testing.assert_close(named["weight_lora_b"].grad, of_weight @ named["weight_lora_a"].detach().T)
    torch.testing.assert_close(named["weight_lora_a"].grad, named["weight_lora_b"].detach().T @ of_weight)
    assert named["weight"].grad is None


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_a_transformer_layer_equals_pytorchs_with_the_merged_matrices(mode: bool) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    layer, x = adapted(make()), torch.randn(3, 5, 8)
    assert [type(m) for m in layer.modules() if isinstance(m, LoraAttention | LoraLinear)] == [
        LoraAttention,
        *[LoraLinear] * 3,
    ]
    torch.testing.assert_close(layer(x), make()(x))
    perturbed(layer)
    plain = make()
    plain.load_state_dict(merge(layer.state_dict()))
    # in evaluation PyTorch takes a fused path, which reads the matrices and calls no layer
    for model in (layer, plain):
        model.train(mode)
    with torch.inference_mode(not mode):
        found, expected, unadapted = layer(x), plain(x), make()(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, unadapted, atol=1e-2)


def test_separate_matrices_of_queries_keys_and_values_are_adapted_each() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4)
    plain = copy.deepcopy(attention)
    adapted(attention, rank=2, alpha=2.0)
    perturbed(attention)
    plain.load_state_dict(merge(attention.state_dict()))
    given = torch.randn(5, 3, 8), torch.randn(4, 3, 6), torch.randn(4, 3, 4)
    torch.testing.assert_close(attention(*given)[0], plain(*given)[0], rtol=1e-5, atol=1e-6)


def test_a_gpt_is_the_merged_one_with_its_memory_too() -> None:
    def make() -> GPT:
        torch.manual_seed(0)
        return GPT((8,), 11, layers=2, heads=2, width=8, tied=False)

    model, x = adapted(make()), torch.arange(8)[None]
    torch.testing.assert_close(model(x), make()(x))
    perturbed(model)
    plain = make()
    plain.load_state_dict(merge(model.state_dict()))
    torch.testing.assert_close(model(x), plain(x), rtol=1e-5, atol=1e-6)
    assert isinstance(model, GPT)
    first, memory = model.step(x[:, :5], None)
    rest, _ = model.step(x[:, 5:], memory)
    torch.testing.assert_close(torch.cat([first, rest], 1), plain(x), rtol=1e-5, atol=1e-6)


def test_a_model_is_copied_and_restored_with_its_adapters() -> None:
    model = adapted(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    perturbed(model)
    x = torch.randn(5, 3)
    again = copy.deepcopy(model)
    other = adapted(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    other.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x)) and torch.equal(other(x), model(x))


def test_subclasses_of_a_layer_are_left_alone() -> None:
    class Mine(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    assert [*adaptable(nn.Sequential(Mine(3, 4), nn.Linear(4, 2), nn.Conv2d(1, 1, 1)))] == ["1"]
