"""Data sets in files: formats, compression, checksums, downloads; on small twins and on the real ones."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import pickle
import struct
import tarfile
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from dlrun.datasets import cifar10
from dlrun.datasets.files import files, idx
from dlrun.datasets.files.decode import decode_files
from dlrun.datasets.files.sources import CIFAR10, FASHION_MNIST, MNIST, File, Source
from dlrun.datasets.tensors.tensors import TensorOptions
from dlrun.errors import DataError
from tests.facts import says

REAL = Path(os.environ.get("DLRUN_DATA", "/nowhere"))


def needs(name: str) -> pytest.MarkDecorator:
    there = (REAL / name).is_dir()
    return pytest.mark.skipif(not there, reason=f"no {name}: set DLRUN_DATA to a folder that holds {name}/")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DLRUN_DATA", str(tmp_path / "data"))


def idx_file(array: np.ndarray) -> bytes:
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def small_mnist() -> tuple[Source, dict[str, bytes], dict[str, np.ndarray]]:
    """A twin of MNIST with 20 + 6 pictures: its source, its files, its arrays."""
    draw = np.random.default_rng(0)
    arrays = {}
    for prefix, n in (("train", 20), ("t10k", 6)):
        arrays[f"{prefix}-images-idx3-ubyte"] = draw.integers(0, 256, (n, 28, 28))
        arrays[f"{prefix}-labels-idx1-ubyte"] = np.arange(n) % 10
    contents = {name: idx_file(array) for name, array in arrays.items()}
    return replace(MNIST, files=listed(contents), mirrors=()), contents, arrays


def small_cifar() -> tuple[Source, dict[str, bytes], dict[str, np.ndarray]]:
    """A twin of CIFAR-10 with 4 pictures a batch."""
    draw = np.random.default_rng(0)
    arrays = {file.name: draw.integers(0, 256, (4, 3072)).astype(np.uint8) for file in CIFAR10.files}
    contents = {name: old_pickle(a, [0, 1, 2, 9]) for name, a in arrays.items()}
    return replace(CIFAR10, files=listed(contents), mirrors=()), contents, arrays


def old_pickle(array: np.ndarray, labels: list[int]) -> bytes:
    batch = pickle.dumps({b"data": array, b"labels": labels}, protocol=3)
    # numpy 1 kept this function in another module, and so do the original files
    return batch.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def listed(contents: dict[str, bytes]) -> tuple[File, ...]:
    return tuple(File(name, len(c), hashlib.sha256(c).hexdigest()) for name, c in contents.items())


PACKINGS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


def put(folder: Path, contents: dict[str, bytes], packing: str = "") -> None:
    for name, content in contents.items():
        path = folder / (name + packing)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PACKINGS[packing](content))


def load(source: Source, *, path: str | None = None, **options: object):
    plain = {"validation_size": 5, "normalise": True, "scale": 255.0}
    return idx.idx_images(source, tuple("0123456789"), path=path, options=TensorOptions(**{**plain, **options}))


@pytest.mark.parametrize("packing", PACKINGS)
def test_idx_files_come_back_as_they_were(tmp_path: Path, packing: str) -> None:
    source, contents, arrays = small_mnist()
    put(tmp_path / "data" / "mnist", contents, packing)
    data = load(source, validation_size=0, normalise=False)
    assert np.array_equal((data.train.x * 255).round().numpy()[:, 0], arrays["train-images-idx3-ubyte"])
    assert np.array_equal(data.test.y.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert data.spec.input_shape == (1, 28, 28) and data.spec.class_names[3] == "3"


def test_official_splits_and_their_fingerprint_do_not_depend_on_packing_or_place(tmp_path: Path) -> None:
    source, contents, _ = small_mnist()
    put(tmp_path / "data" / "mnist", contents, ".gz")
    put(tmp_path / "elsewhere", contents)
    here, there = load(source), load(source, path=str(tmp_path / "elsewhere"))
    assert here.fingerprint == there.fingerprint and len(here.train) == 15 and len(here.test) == 6
    assert load(source, split_seed=1).fingerprint != here.fingerprint
    assert torch.equal(load(source, split_seed=1, normalise=False).test.x, load(source, normalise=False).test.x)


def test_files_may_lie_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    source, contents, _ = small_mnist()
    folder = tmp_path / "data" / "mnist"
    put(folder, contents, ".gz")
    before = sorted(folder.iterdir())
    load(source)
    assert sorted(folder.iterdir()) == before and not list((tmp_path / "data").glob("*.pt"))


def test_a_file_is_checked_once_for_a_size_and_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, contents, _ = small_mnist()
    put(tmp_path / "data" / "mnist", contents, ".gz")
    load(source)
    read = []
    monkeypatch.setattr(files, "read", lambda path, file: read.append(path))
    load(source)
    assert read == []
    monkeypatch.undo()
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DLRUN_DATA", str(tmp_path / "data"))
    labels = tmp_path / "data" / "mnist" / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(bytes(28)))
    with pytest.raises(DataError, match="train-labels"):
        load(source)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("spoil", ["truncated", "altered"])
def test_a_spoilt_file_is_named_with_its_checksum(tmp_path: Path, packing: str, spoil: str) -> None:
    source, contents, _ = small_mnist()
    folder = tmp_path / "data" / "mnist"
    put(folder, contents, packing)
    path = folder / f"train-images-idx3-ubyte{packing}"
    content = bytearray(path.read_bytes())
    if spoil == "truncated":
        content = content[:-100]
    else:
        content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load(source)
    says(str(caught.value), str(path), source.files[0].sha256)
    assert caught.value.exit_code == 2


def test_missing_files_are_named_with_checksums_and_what_needs_no_download(tmp_path: Path) -> None:
    source, contents, _ = small_mnist()
    del contents["t10k-labels-idx1-ubyte"]
    put(tmp_path / "mine", contents)
    with pytest.raises(DataError) as caught:
        load(source, path=str(tmp_path / "mine"))
    message = str(caught.value)
    missing = tmp_path / "mine" / "t10k-labels-idx1-ubyte"
    says(
        message,
        str(missing),
        source.files[3].sha256,
        "1 of the 4",
        source.home,
        "digits, diabetes, breast_cancer, wine, polynomial, moons, spirals",
    )
    assert "train-images" not in message


def test_an_idx_file_of_another_kind_is_refused() -> None:
    good = idx_file(np.zeros((2, 3)))
    for bad in (b"", good[:-1], good[:7], b"\0\0\x0d" + good[3:]):
        with pytest.raises(DataError, match="idx file"):
            idx.parse(bad)


@pytest.mark.parametrize("packing", ["", ".xz"])
def test_cifar_batches_come_back_in_order(tmp_path: Path, packing: str) -> None:
    source, contents, arrays = small_cifar()
    put(tmp_path / "data" / "cifar10", contents, packing)
    tensors, _ = decode_files(source, cifar10.decode)
    names = [f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)]
    expected = np.concatenate([arrays[name] for name in names]).reshape(-1, 3, 32, 32)
    assert np.array_equal(tensors["train_x"].numpy(), expected)
    assert tensors["test_y"].tolist() == [0, 1, 2, 9] and tensors["train_y"].tolist() == [0, 1, 2, 9] * 5
    inner = tmp_path / "data" / "cifar10" / "cifar-10-batches-py"
    assert torch.equal(decode_files(source, cifar10.decode, path=str(inner))[0]["train_x"], tensors["train_x"])


def test_a_pickle_that_asks_for_more_than_arrays_is_refused() -> None:
    class Evil:
        def __reduce__(self):
            return os.system, ("echo never",)

    with pytest.raises(DataError, match="system"):
        cifar10.parse(pickle.dumps({b"data": Evil()}))
    for content in (b"", b"\x80\x02}.", pickle.dumps([1]), pickle.dumps({b"data": 1, b"labels": [1]})):
        with pytest.raises(DataError, match="Not a batch"):
            cifar10.parse(content)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """Serve `tmp_path/mirror` on this machine and give its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    (tmp_path / "mirror").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "mirror"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_missing_set_comes_from_the_first_mirror_that_has_it(tmp_path: Path, mirror: str) -> None:
    source, contents, _ = small_mnist()
    put(tmp_path / "mirror" / "wrong", {name: content[:-1] for name, content in contents.items()}, ".gz")
    put(tmp_path / "mirror" / "right", contents, ".gz")
    folder = tmp_path / "data" / "mnist"
    put(folder, dict(list(contents.items())[:1]))
    source = replace(source, mirrors=(f"{mirror}none/", f"{mirror}wrong/", f"{mirror}right/"))
    assert len(load(source).test) == 6
    # what was there is not fetched again, and nothing half done is left
    names = sorted(path.name for path in folder.iterdir() if path.name != ".download.lock")
    assert names == sorted(["train-images-idx3-ubyte", *(f"{name}.gz" for name in list(contents)[1:])])


def test_an_archive_gives_its_members(tmp_path: Path, mirror: str) -> None:
    source, contents, _ = small_cifar()
    put(tmp_path / "plain", contents)
    with tarfile.open(tmp_path / "mirror" / "cifar.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "plain" / "cifar-10-batches-py", "cifar-10-batches-py")
    tensors, _ = decode_files(replace(source, mirrors=(f"{mirror}cifar.tar.gz",)), cifar10.decode)
    assert len(tensors["train_x"]) == 20
    left = [p.name for p in (tmp_path / "data" / "cifar10").iterdir()]
    assert sorted(left) == [".download.lock", "cifar-10-batches-py"]


def test_without_a_right_answer_the_error_says_what_each_mirror_said(tmp_path: Path, mirror: str) -> None:
    source, contents, _ = small_mnist()
    put(tmp_path / "mirror" / "wrong", {name: content[:-1] for name, content in contents.items()}, ".gz")
    source = replace(source, mirrors=("http://127.0.0.1:9/", f"{mirror}none/", f"{mirror}wrong/"))
    with pytest.raises(DataError) as caught:
        load(source)
    says(str(caught.value), "refused", "404", "truncated or altered")
    says(str(caught.value), source.files[0].sha256, str(tmp_path / "data" / "mnist"))
    assert [p.name for p in (tmp_path / "data" / "mnist").iterdir()] == [".download.lock"]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        load(replace(small_mnist()[0], mirrors=("http://127.0.0.1:9/",)))


@pytest.mark.parametrize(
    ("source", "mean", "deviation"),
    [
        pytest.param(MNIST, 33.318, 78.567, marks=needs("mnist")),
        pytest.param(FASHION_MNIST, 72.940, 90.021, marks=needs("fashion_mnist")),
    ],
)
def test_the_real_pixels_have_the_published_mean_and_deviation(source: Source, mean: float, deviation: float) -> None:
    data = load(source, path=str(REAL / source.name), validation_size=0)
    assert data.prepare.mean[0] == pytest.approx(mean, abs=6e-4)
    assert data.prepare.deviation[0] == pytest.approx(deviation, abs=6e-4)
    assert (len(data.train), len(data.test)) == (60000, 10000)
    assert abs(float(data.train.x.mean())) < 1e-4 and abs(float(data.train.x.std()) - 1) < 1e-4


@needs("cifar10")
def test_a_real_batch_of_cifar_is_read() -> None:
    file = CIFAR10.files[5]
    path = files.find(REAL / "cifar10", file)
    assert path is not None
    x, y = cifar10.parse(files.check(path, file))
    assert x.shape == (10000, 3, 32, 32) and y.bincount().tolist() == [1000] * 10


@pytest.mark.parametrize("packing", PACKINGS)
def test_no_more_is_unpacked_than_a_file_should_have(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"labels{packing}"
    path.write_bytes(PACKINGS[packing](bytes(1 << 25)))
    tracemalloc.start()
    with pytest.raises(DataError, match="more than 100 bytes"):
        files.check(path, File("labels", 100, "0" * 64))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 24  # xz takes 8 MB by itself


def test_an_xz_file_may_have_several_streams(tmp_path: Path) -> None:
    path = tmp_path / "labels.xz"
    path.write_bytes(lzma.compress(b"one") + bytes(4) + lzma.compress(b"two"))
    content = b"onetwo"
    assert files.check(path, File("labels", 6, hashlib.sha256(content).hexdigest())) == content


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n(I1000000000000\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS'b'\ntR.",
        b"(" * 200000 + b".",
        b"",
    ],
)
def test_a_batch_that_claims_too_much_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="CIFAR-10"):
        cifar10.parse(content)


@pytest.mark.parametrize("head", [b"\0\0\x08\x01" + bytes(4), b"\0\0\x08\x80" + b"\0\0\0\1" * 128 + b"a"])
def test_an_idx_file_of_no_values_or_many_axes_is_refused(head: bytes) -> None:
    with pytest.raises(DataError, match="idx"):
        idx.parse(head)
