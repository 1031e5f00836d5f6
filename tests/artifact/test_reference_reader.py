"""docs/format.md is enough: a reader written from it alone finds what ours finds, bit for bit."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import reference_reader as reference
import torch
from files import of_zoo, randomly

from hirelc.artifact.container import pack, read
from hirelc.artifact.contents import Contents
from hirelc.compression.fakequant import restore

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.hirelc"))
NETWORKS = ("resnet-basic", "mobilenet", "vit-torchvision", "tied", "signal", "unet", "torch-encoder", "weight-norm")


def assert_same(data: bytes) -> Contents:
    ours, theirs = read(data), reference.read(data)
    assert [k.name for k in ours.layout.kernels] == list(theirs.kernels)
    for stored in ours.layout.kernels:
        mine, other = ours.kernels[stored.name], theirs.kernels[stored.name]
        assert mine.codes.tolist() == other.codes, stored.name
        assert mine.scale.ravel().numpy().tobytes() == np.array(other.scales, dtype=np.float32).tobytes(), stored.name
        assert mine.zero_point == other.zero_point
        weight = restore(mine, stored.shape, stored.channel_dim)
        assert tuple(weight.shape) == other.weight.shape
        assert torch.equal(weight, torch.from_numpy(np.ascontiguousarray(other.weight))), stored.name
    for tensor in ours.layout.rest:
        mine, other = ours.value(tensor).numpy(), theirs.rest[tensor.name]
        assert mine.shape == other.shape
        assert mine.tobytes() == other.astype(mine.dtype).tobytes(), tensor.name
    kept = [*ours.kept.units.values(), *(ours.kept.rows[r.kernel] for r in ours.layout.rows)]
    assert [list(units) for units in kept] == [[i for i, bit in enumerate(mask) if bit] for mask in theirs.masks]
    sites = [[a.module, a.side, a.scale, a.zero_point] for a in ours.activations]
    assert sites == theirs.manifest["activations"]
    return ours


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_golden_files(path: Path) -> None:
    assert_same(path.read_bytes())


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    contents = assert_same(pack(of_zoo(name)))
    assert contents.kernels and contents.rest


def test_activations_and_random_policies() -> None:
    contents = assert_same(pack(of_zoo("resnet-bottleneck", randomly(1), activations=True)))
    assert contents.activations and contents.kept.units and contents.kept.rows


def test_the_reference_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(reference.__file__).read_text())
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"__future__", "hashlib", "json", "struct", "zlib", "dataclasses", "itertools", "typing", "numpy"}
