"""The sources of `init_from`, what of them fits a model, and what is skipped."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError, DamagedFile, UserError
from dlrun.runs.weights import loading
from dlrun.runs.weights.fitting import fit
from dlrun.storage import checkpoint
from dlrun.storage.files.safetensors import read_safetensors
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false", "model.hidden=[4]")
STILL = ("trainer.steps=1", "optimizer.lr=0")


def train(call: Call, *overrides: str) -> RunDir:
    known = all_runs()
    done = call("train", *QUICK, *overrides)
    assert done.code == 0, done.err
    return next(run for run in all_runs() if run not in known)


def written(tensors: dict[str, Tensor], **metadata: str) -> bytes:
    """A safetensors file as the format's page has it, written here by hand."""
    types = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL", torch.bfloat16: "BF16", torch.float16: "F16"}
    head, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, t in tensors.items():
        raw = bytes(t.contiguous().reshape(-1).view(torch.uint8).tolist())
        head[name] = {
            "dtype": types[t.dtype],
            "shape": list(t.shape),  # type: ignore[dict-item]
            "data_offsets": [len(data), len(data) + len(raw)],  # type: ignore[dict-item]
        }
        data += raw
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_a_safetensors_file_is_read_as_its_page_describes_it(tmp_path: Path) -> None:
    # the bytes of the safetensors library's own test of a simple file, and a tensor of each other shape and type
    simple = (
        b"@\x00\x00\x00\x00\x00\x00\x00"
        b'{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}}    '
        b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    )
    file = tmp_path / "a.safetensors"
    file.write_bytes(simple)
    assert torch.equal(read_safetensors(file)["test"], torch.zeros(2, 2, dtype=torch.int32))
    tensors = {
        "flag": torch.tensor([True, False, True]),
        "one": torch.tensor(1.5),
        "none": torch.empty(0, 3),
        "half": torch.randn(3, 2).bfloat16(),
        "whole": torch.arange(5),
    }
    file.write_bytes(written(tensors, format="pt"))
    found = read_safetensors(file)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], t) and found[name].dtype == t.dtype for name, t in tensors.items())


@pytest.mark.parametrize("change", ["cut", "head", "offsets", "empty", "text"])
def test_a_damaged_safetensors_file_is_named(change: str, tmp_path: Path) -> None:
    file, whole = tmp_path / "a.safetensors", written({"a": torch.ones(4)})
    spoilt = {
        "cut": whole[:-1],
        "head": struct.pack("<Q", 1 << 40) + whole[8:],
        "offsets": whole.replace(b"[0, 16]", b"[0, 12]"),
        "empty": b"",
        "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n",
    }
    file.write_bytes(spoilt[change])
    with pytest.raises(DamagedFile, match=r"a\.safetensors"):
        read_safetensors(file)


@pytest.mark.parametrize(
    "entry",
    [
        '{"dtype":"F32","shape":[250000000000000],"data_offsets":[0,1000000000000000]}',
        f'{{"dtype":"F32","shape":[{10**30}],"data_offsets":[0,{4 * 10**30}]}}',
        '{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}',
        '{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}',
        '{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[1],"data_offsets":[4,8]}',
        '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',
        f'{{"dtype":"F32","shape":[0,{1 << 62},8],"data_offsets":[0,0]}},'
        '"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}',
    ],
)
def test_a_head_that_does_not_describe_the_file_is_refused(entry: str, tmp_path: Path) -> None:
    head = f'{{"a":{entry}}}'.encode()
    file = tmp_path / "a.safetensors"
    file.write_bytes(struct.pack("<Q", len(head)) + head + bytes(8))
    with pytest.raises(DamagedFile, match=r"a\.safetensors"):
        read_safetensors(file)


def test_a_state_dict_has_names(tmp_path: Path) -> None:
    torch.save({0: torch.ones(2)}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=r"odd\.pt is no checkpoint"):
        checkpoint.load_model(tmp_path / "odd.pt")
    torch.save({"format": 1, "model": {0: torch.ones(2)}}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=r"odd\.pt is a checkpoint without weights"):
        checkpoint.load_model(tmp_path / "odd.pt")


def test_tensors_of_any_kind_are_skipped_or_named(tmp_path: Path) -> None:
    model, file = nn.Linear(2, 2), tmp_path / "odd.pt"
    values = model.state_dict()
    for odd in (torch.eye(2).to_sparse(), torch.ones(2, dtype=torch.complex64).conj(), torch.empty(2, device="meta")):
        torch.save({**values, "odd": odd}, file)
        assert loading.start_from(str(file), model, skip=["odd"]) == loading.digest(str(file))
    for halves in (
        {"weight_lora_a": torch.ones(1, 2)},
        {f"weight_lora_{e}": torch.ones(3) for e in ("a", "b", "scale")},
    ):
        torch.save({**values, **halves}, file)
        with pytest.raises(UserError, match="adapters do not fit"):
            loading.start_from(str(file), model)


def test_weights_that_are_no_numbers_are_refused() -> None:
    model = nn.BatchNorm1d(3)
    there = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, {**there, "running_var": torch.full((3,), torch.inf)}, [], where="init_from=x")
    with pytest.raises(UserError, match=r"init_from=x: weight has numbers that are NaN.*init_from_skip=\[weight\]"):
        fit(model, {**there, "weight": torch.tensor([1.0, torch.nan, 1.0])}, [], where="init_from=x")


def test_every_kind_of_file_gives_the_weights_of_the_run(here: Path, call: Call) -> None:
    base = train(call, "trainer.steps=3", "seed=5")
    weights = checkpoint.load_best(base.best).model
    torch.save(weights, here / "plain.pt")
    torch.save({"state_dict": weights, "epoch": 3}, here / "wrapped.ckpt")
    (here / "hub.safetensors").write_bytes(written(weights))
    identities = set()
    for source in (base.id, str(base.best), "plain.pt", "wrapped.ckpt", "hub.safetensors"):
        run = train(call, f"init_from={source}", *STILL)
        found = checkpoint.load(run.last).model
        assert all(torch.equal(found[name], value) for name, value in weights.items()), source
        identities.add(run.summary().identity)
        origin = run.summary().origin
        # what a file's weights have learned from is not known, and said
        assert bool(origin["unknown"]) == (not source.startswith(str(base.path)) and source != base.id)
    # the same weights are the same beginning, whatever they lie in
    assert len(identities) == 1


def test_a_file_that_is_missing_is_no_run(here: Path, call: Call) -> None:
    refuses(call("train", "init_from=missing.safetensors"), "init_from=missing.safetensors", "no such file")


def test_a_file_with_code_is_not_run(here: Path, call: Call) -> None:
    torch.save(nn.Linear(2, 1), here / "model.pt")
    refuses(call("train", *QUICK, "init_from=model.pt"), "model.pt", "more than tensors")
    torch.save({"weights": [1, 2]}, here / "other.pt")
    refuses(call("train", *QUICK, "init_from=other.pt"), "other.pt", "weights", "torch.save(model.state_dict()")


def test_a_replaced_head_begins_as_the_seed_draws_it(here: Path, call: Call) -> None:
    base = train(call, "trainer.steps=3", "seed=5")
    weights = checkpoint.load_best(base.best).model
    weights["layers.2.weight"], weights["layers.2.bias"] = torch.zeros(7, 4), torch.zeros(7)
    torch.save(weights, here / "seven.pt")
    shown = ("2 names of 4 fit", "layers.2.weight", "(10, 4)", "(7, 4)")
    refuses(call("train", *QUICK, "init_from=seven.pt"), *shown, "'init_from_skip=[layers.2]'")
    # the words to type work
    run = train(call, "init_from=seven.pt", "init_from_skip=[layers.2]", *STILL)
    fresh = checkpoint.load(train(call, *STILL).last).model
    found = checkpoint.load(run.last).model
    assert torch.equal(found["layers.0.weight"], weights["layers.0.weight"])
    assert torch.equal(found["layers.2.weight"], fresh["layers.2.weight"])
    assert run.summary().identity != train(call, f"init_from={base.id}", *STILL).summary().identity
    refuses(call("train", *QUICK, "init_from=seven.pt", "init_from_skip=[head]"), "init_from_skip", "head", "layers.2")
    refuses(call("train", *QUICK, "init_from_skip=[layers.2]"), "init_from")


def test_a_frozen_run_is_resumed_bit_for_bit(here: Path, call: Call) -> None:
    base = train(call, "trainer.steps=3", "seed=5", "model.hidden=[4,4]")
    tuned = (f"init_from={base.id}", "init_from_skip=[layers.4]", "finetune.freeze=[layers.0]", "model.hidden=[4,4]")
    tuned += ("finetune.unfreeze={layers.2:4}", "finetune.lr={layers.2:0.5}", "trainer.evaluate_every=2")
    whole = train(call, *tuned, "trainer.steps=8")
    summary = whole.summary()
    assert summary.parameters == 4 * 65 + 4 * 5 + 10 * 5 and summary.trained_parameters == 4 * 5 + 10 * 5
    for stop in (3, 4, 5):
        part = train(call, *tuned, f"trainer.steps={stop}")
        assert call("resume", part.id, "trainer.steps=8").code == 0
        one, other = (checkpoint.load(run.last) for run in (whole, part))
        assert all(torch.equal(one.model[name], other.model[name]) for name in one.model)
        assert torch.equal(one.model["layers.0.weight"], checkpoint.load_best(base.best).model["layers.0.weight"])
    says(call("check", *QUICK, *tuned).out, "70 train")


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def test_what_does_not_fit_is_a_table() -> None:
    values = {**model().state_dict(), "1.weight": torch.zeros(5, 4), "old": torch.zeros(3)}
    del values["0.bias"]
    with pytest.raises(UserError) as error:
        fit(model(), values, [], where="init_from=x")
    rows = [line.split("  ") for line in str(error.value).splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows[1:5]]
    assert cells == [
        ["name", "shape here", "shape there"],
        ["0.bias", "(4,)", "missing"],
        ["1.weight", "(2, 4)", "(5, 4)"],
        ["old", "missing", "(3,)"],
    ]
    assert "2 names of 4 fit" in str(error.value)
    assert "'init_from_skip=[0.bias,1.weight,old]'" in str(error.value)


def test_the_names_of_a_wrapped_model_are_explained() -> None:
    values = {f"module.{name}": value for name, value in model().state_dict().items()}
    with pytest.raises(UserError, match=r"begin with `module\.`"):
        fit(model(), values, [], where="init_from=x")


def test_many_misfits_are_cut_short() -> None:
    deep = nn.Sequential(*(nn.Linear(1, 1) for _ in range(30)))
    with pytest.raises(UserError, match="and 40 more"):
        fit(deep, {}, [], where="init_from=x")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_numbers_of_another_kind_are_no_weights(dtype: torch.dtype) -> None:
    model = nn.BatchNorm1d(3)
    there = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=rf"weight +\(3,\) float32 +\(3,\) {str(dtype).removeprefix('torch.')}"):
        fit(model, {**there, "weight": torch.ones(3, dtype=dtype)}, [], where="init_from=x")
    # another precision is none, and a count is one in any
    fit(model, {name: value.half() for name, value in there.items()}, [], where="init_from=x")
    fit(model, {**there, "weight": torch.ones(3, dtype=dtype)}, ["weight"], where="init_from=x")


def test_tied_weights_are_skipped_by_all_names_or_none() -> None:
    tied = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    tied[1].weight = tied[0].weight
    before = tied[0].weight.detach().clone()
    with pytest.raises(ConfigError, match=r"0\.weight.*same tensor"):
        fit(tied, {"0.weight": torch.zeros(5, 4), "1.weight": torch.zeros(5, 4)}, ["1"], where="init_from=x")
    assert torch.equal(tied[0].weight, before)
    fit(tied, {"0.weight": torch.zeros(6, 4)}, ["*"], where="init_from=x")
    assert torch.equal(tied[0].weight, before)
