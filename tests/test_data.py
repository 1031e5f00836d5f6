from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from hirelc import data
from hirelc.batches import TensorBatches
from hirelc.data import Splits, check_labels, load_data, make_splits
from hirelc.errors import DataError
from hirelc.idx import IDX_FILES, read_idx, write_idx


def tensors(splits: Splits, name: str) -> TensorBatches:
    part = getattr(splits, name)
    return part._batches if name == "test" else part  # type: ignore[no-any-return]


def npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


# ---- idx


def test_idx_round_trip_plain_and_gzipped(tmp_path: Path) -> None:
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
        write_idx(tmp_path / name, images)
        assert np.array_equal(read_idx(tmp_path / name), images)


def test_idx_folder_is_split_in_order(idx_folder: Path) -> None:
    splits = load_data(f"idx:{idx_folder}", batch_size=8)
    assert (splits.train.samples, splits.validation.samples) == (33, 3)
    assert splits.test is not None and splits.test.samples == 8 and splits.classes == 4
    stored = read_idx(idx_folder / IDX_FILES[0])
    assert np.array_equal(tensors(splits, "validation").x[:, 0], stored[-3:])
    assert np.array_equal(tensors(splits, "train").x[:, 0], stored[:-3])
    assert "33 train" in splits.description


def test_idx_pixels_are_normalised_by_their_own_statistics(idx_folder: Path) -> None:
    pixels = read_idx(idx_folder / IDX_FILES[0]) / 255
    mean, std = tensors(load_data(str(idx_folder)), "train").normalise or (0, 0)
    assert abs(mean - pixels.mean()) < 1e-4 and abs(std - pixels.std()) < 1e-4


def test_fashion_mnist_is_known_by_name_or_by_its_first_labels(idx_folder: Path) -> None:
    assert tensors(load_data(f"fashion-mnist:{idx_folder}"), "train").normalise == (0.2860, 0.3530)
    labels = np.array((*data.FASHION_MNIST_LABELS, *range(10), *range(6)), np.uint8)
    write_idx(idx_folder / IDX_FILES[1], labels)
    splits = load_data(str(idx_folder))
    assert tensors(splits, "train").normalise == (0.2860, 0.3530) and splits.classes == 10
    assert tensors(splits, "train").augment == "shift-flip"


def test_requests_are_heeded(idx_folder: Path) -> None:
    splits = load_data(str(idx_folder), batch_size=5, train_limit=10, augment=None)
    train = tensors(splits, "train")
    assert train.samples == 10 and train.augment is None and train.batch_size == 5
    assert splits.validation.samples == 3


def truncate(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-5])


def lengthen(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b"x")


def wrong_magic(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x00\x00\x0d\x03" + (folder / name).read_bytes()[4:])


def header_only(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:6])


def emptied(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")


def remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def bad_gzip(folder: Path, name: str) -> None:
    packed = gzip.compress((folder / name).read_bytes())
    (folder / name).unlink()
    (folder / f"{name}.gz").write_bytes(packed[:-9])


def not_gzip(folder: Path, name: str) -> None:
    (folder / name).rename(folder / f"{name}.gz")


def fewer_labels(folder: Path, name: str) -> None:
    write_idx(folder / IDX_FILES[1], np.zeros(7, np.uint8))


def no_images(folder: Path, name: str) -> None:
    write_idx(folder / IDX_FILES[0], np.zeros((0, 8, 8), np.uint8))
    write_idx(folder / IDX_FILES[1], np.zeros(0, np.uint8))


def other_shape(folder: Path, name: str) -> None:
    write_idx(folder / IDX_FILES[2], np.zeros((8, 9, 8), np.uint8))


def label_out_of_range(folder: Path, name: str) -> None:
    write_idx(folder / IDX_FILES[3], np.full(8, 4, np.uint8))


IDX_DAMAGE = [
    (truncate, "truncated or damaged"),
    (lengthen, "truncated or damaged"),
    (wrong_magic, "not an idx file"),
    (header_only, "inside its header"),
    (emptied, "starts with nothing"),
    (remove, "is missing"),
    (bad_gzip, "unpacked"),
    (not_gzip, "unpacked"),
    (fewer_labels, "36 images but 7 labels"),
    (no_images, "empty"),
    (other_shape, "make them alike"),
    (label_out_of_range, "label 4 is out of range"),
]


@pytest.mark.parametrize(("damage", "message"), IDX_DAMAGE, ids=[damage.__name__ for damage, _ in IDX_DAMAGE])
def test_damaged_idx_sets(idx_folder: Path, damage: Callable[[Path, str], None], message: str) -> None:
    damage(idx_folder, IDX_FILES[0])
    with pytest.raises(DataError, match=message) as caught:
        load_data(f"idx:{idx_folder}")
    assert str(idx_folder) in str(caught.value) and "\n" not in str(caught.value)


def test_fashion_mnist_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "FASHION_MNIST_FOLDER", tmp_path)
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        load_data("fashion-mnist")
    with pytest.raises(DataError, match="no such folder"):
        load_data(f"fashion-mnist:{tmp_path / 'nowhere'}")


# ---- the bundled part


def test_demo_data_is_real_balanced_and_small() -> None:
    splits = load_data("demo")
    assert splits.classes == 10 and splits.test is not None
    assert (splits.train.samples, splits.validation.samples, splits.test.samples) == (6000, 1000, 2000)
    train = tensors(splits, "train")
    assert tuple(train.y[: len(data.FASHION_MNIST_LABELS)].tolist()) == data.FASHION_MNIST_LABELS
    assert torch.bincount(train.y).min() > 500 and train.x.shape == (6000, 1, 28, 28) and train.x.dtype == torch.uint8
    folder = Path(data.__file__).parent / "demo_data"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4_000_000
    assert "MIT" in (folder / "NOTICE").read_text()


# ---- npz


def test_npz_without_test_is_carved_by_the_seed(tmp_path: Path) -> None:
    x = np.arange(50, dtype=np.float32).reshape(50, 1)
    spec = npz(tmp_path / "d.npz", x=x, y=np.arange(50) % 5)
    splits = load_data(spec, seed=1)
    parts = [tensors(splits, name).x.flatten().tolist() for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [40, 5, 5]
    assert sorted(value for part in parts for value in part) == list(range(50))
    same, other = load_data(f"npz:{spec}", seed=1), load_data(spec, seed=2)
    assert tensors(same, "test").x.flatten().tolist() == parts[2]
    assert tensors(other, "test").x.flatten().tolist() != parts[2]


def test_npz_with_test_keeps_it(tmp_path: Path) -> None:
    x, y = np.zeros((30, 4, 4), np.uint8), np.arange(30) % 3
    splits = load_data(npz(tmp_path / "d.npz", x=x, y=y, x_test=x[:7] + 9, y_test=y[:7]))
    assert splits.test is not None and splits.test.samples == 7
    assert (splits.train.samples, splits.validation.samples) == (27, 3)
    assert tensors(splits, "train").x.shape == (27, 1, 4, 4)


GOOD_X, GOOD_Y = np.zeros((20, 3), np.float32), np.arange(20) % 2
NAN_X = np.where(np.arange(60).reshape(20, 3) == 33, np.nan, 0.0)
INF_X = np.where(np.arange(60).reshape(20, 3) == 33, np.inf, 0.0)
NPZ_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("nan", {"x": NAN_X, "y": GOOD_Y}, "NaN or infinite pixels in 1 samples, the first is sample 11"),
    ("infinite", {"x": INF_X, "y": GOOD_Y}, "NaN or infinite"),
    ("empty", {"x": GOOD_X[:0], "y": GOOD_Y[:0]}, "empty"),
    ("lengths", {"x": GOOD_X, "y": GOOD_Y[:9]}, "20 images but 9 labels"),
    ("negative", {"x": GOOD_X, "y": GOOD_Y - 1}, "negative"),
    ("fractional", {"x": GOOD_X, "y": GOOD_Y + 0.5}, "not whole numbers"),
    ("nan label", {"x": GOOD_X, "y": GOOD_Y * np.nan}, "not whole numbers"),
    ("one-hot", {"x": GOOD_X, "y": np.eye(2)[GOOD_Y]}, "one class number for each sample"),
    ("no y", {"x": GOOD_X}, "array y is missing"),
    ("half a test split", {"x": GOOD_X, "y": GOOD_Y, "x_test": GOOD_X}, "array y_test is missing"),
    ("shape", {"x": GOOD_X, "y": GOOD_Y, "x_test": GOOD_X[:, :2], "y_test": GOOD_Y}, "make them alike"),
    ("too few", {"x": GOOD_X[:2], "y": GOOD_Y[:2]}, "too few to carve"),
    ("words", {"x": np.array(["a"] * 20), "y": GOOD_Y}, "store real numbers"),
    ("complex", {"x": GOOD_X + 0j, "y": GOOD_Y}, "x is complex64 .*store real numbers"),
    ("one number", {"x": np.float32(3), "y": np.int64(1)}, "x is a single number"),
    ("one label", {"x": GOOD_X, "y": np.int64(1)}, "y is a single number"),
    ("pickle", {"x": np.array([{}] * 20), "y": GOOD_Y}, "not a readable .npz of plain arrays"),
]


@pytest.mark.parametrize(("arrays", "message"), [fault[1:] for fault in NPZ_FAULTS], ids=[fault[0] for fault in NPZ_FAULTS])
def test_faulty_npz(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    spec = npz(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_data(spec)
    assert "d.npz" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 broken"])
def test_damaged_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz: not a readable"):
        load_data(str(tmp_path / "d.npz"))


def test_truncated_npz(tmp_path: Path) -> None:
    spec = npz(tmp_path / "d.npz", x=GOOD_X, y=GOOD_Y)
    whole = Path(spec).read_bytes()
    Path(spec).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a readable"):
        load_data(spec)


# ---- names


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no/such/place", "no such file, folder or data set"),
        ("npz:no/such.npz", "no such file"),
        ("demo:x", "takes no argument"),
        ("python:nothing", "give python:module:function"),
        ("python:no_such_module_here:f", "cannot import"),
        ("python:json:no_such", "has no no_such"),
        ("python:json:__name__", "is not a function"),
        ("python:os:getcwd", "must return"),
        (__file__, "this kind of file cannot be read"),
    ],
)
def test_names_that_lead_nowhere(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(spec)


@pytest.mark.parametrize(
    ("wish", "message"),
    [({"batch_size": 0}, "batch_size"), ({"train_limit": 0}, "train_limit"), ({"augment": "blur"}, "unknown")],
)
def test_requests_that_make_no_sense(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data("demo", **wish)


def test_python_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_hirelc_data.py").write_text(
        "import torch\n"
        "def three():\n"
        "    x, y = torch.zeros(20, 1), torch.arange(20) % 4\n"
        "    return (x, y), (x[:8], y[:8]), (x[:5], y[:5])\n"
        "def two():\n"
        "    return three()[:2]\n"
        "def none():\n"
        "    raise KeyError('photos')\n"
    )
    monkeypatch.chdir(tmp_path)
    splits = load_data("python:my_hirelc_data:three", batch_size=4, train_limit=12)
    assert splits.test is not None and splits.test.samples == 5 and splits.classes == 4 and splits.train.samples == 12
    assert load_data("python:my_hirelc_data:two").test is None
    with pytest.raises(DataError, match="my_hirelc_data:none: the function fails: KeyError: 'photos'"):
        load_data("python:my_hirelc_data:none")


def test_a_new_source_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SOURCES", dict(data.SOURCES))

    @data.source("zeros")
    def zeros(rest: str, request: data.Request) -> Splits:
        x, y = torch.zeros(int(rest), 1), torch.zeros(int(rest), dtype=torch.long)
        return make_splits((x, y), (x, y), request=request)

    assert load_data("zeros:7").train.samples == 7


# ---- checks


def test_splits_are_looked_through(tiny_images: tuple[Tensor, Tensor]) -> None:
    x, y = tiny_images
    pixels = x / 255
    assert make_splits(TensorDataset(pixels, y), [(pixels, y)]).classes == 4
    pixels[3] = float("nan")
    with pytest.raises(DataError, match="validation split: NaN or infinite"):
        make_splits((x, y), [(pixels, y)])
    with pytest.raises(DataError, match="train split: label -1 is negative"):
        make_splits([(x, y - 1)], (x, y))
    with pytest.raises(DataError, match="validation split: the data set is empty"):
        make_splits((x, y), [])


def test_labels_must_fit_the_network(tiny_images: tuple[Tensor, Tensor]) -> None:
    splits = make_splits(tiny_images, tiny_images, description="mine")
    splits.check_classes(4)
    with pytest.raises(DataError, match="mine: labels run up to 3, but the network has 3 outputs"):
        splits.check_classes(3)


def test_check_labels_accepts_whole_floats() -> None:
    assert check_labels(torch.tensor([0.0, 2.0]), 3, "y").dtype == torch.int64
