"""What a file may claim, and what a reader spends on it; pruning that does not fit the network."""

from __future__ import annotations

import resource
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from files import Parts, of_zoo
from refusing import GOLDEN, PRUNED, Fields, put, refused

import hirelc
from hirelc.artifact.container import pack, read
from hirelc.artifact.load import load
from hirelc.artifact.manifest import inflated_limit, items_limit
from hirelc.errors import FormatError
from zoo import BY_NAME

# -- what is claimed ---------------------------------------------------------------------------------------


def peak_bytes(data: bytes) -> int:
    tracemalloc.start()
    try:
        refused(data, "cannot hold|inflates to more|cannot be read|larger than any|exactly the keys|where a")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "change",
    [
        put("kernels", 0, 1, [5, 2 * 10**9]),
        put("rest", 0, 1, [10**10]),
        put("couplings", 0, 0, 10**10),
        put("rows", 0, 1, 10**10),
        lambda f: f["rest"].extend([f"t{i}", [2**23], "coded", 0, 0] for i in range(1000)),
        lambda f: f["rest"].append(["raw", [10**10], "int64"]),
    ],
)
def test_a_kilobyte_that_claims_ten_gigabytes(change: Callable[[Fields], Any]) -> None:
    data = Parts.of(PRUNED).edited(change).pack()
    assert len(data) < 10_000
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    assert peak_bytes(data) < 8 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 2**10  # kilobytes
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("text", [b" " * (80 * 2**20), b"[" * (80 * 2**20), b"[" + b"[]," * (20 * 2**20) + b"[]]"], ids=len)
def test_a_manifest_that_inflates_without_end(text: bytes) -> None:
    parts = Parts.of(PRUNED)
    data = replace(parts, manifest=zlib.compress(text, 9)).pack()
    assert peak_bytes(data) < 3 * inflated_limit(len(data)) < 30 * 2**20


def test_many_empty_lists_within_the_limit_stay_small() -> None:
    """128 KiB of JSON are let in whatever the file's length: what Python makes of it is what counts."""
    parts = Parts.of(PRUNED)
    data = replace(parts, manifest=zlib.compress(b"[" + b"[]," * 40_000 + b"[]]", 9)).pack()
    refused(data, "exactly the keys")
    assert peak_bytes(data) < 8 * 2**20


def test_what_is_allowed_is_bounded_too() -> None:
    """The most that a small file may claim, all of it symbols that cost nothing."""
    constant = Parts.of((GOLDEN / "constant.hirelc").read_bytes())
    allowed = constant.edited(put("kernels", 0, 1, [4096, 4000])).pack()
    assert items_limit(len(allowed)) < 17_000_000
    tracemalloc.start()
    assert read(allowed).kernels["zeros.weight"].codes.numel() == 4096 * 4000
    assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    tracemalloc.stop()
    refused(constant.edited(put("kernels", 0, 1, [4096, 4200])).pack(), "cannot hold")


# -- pruning that does not fit -----------------------------------------------------------------------------

NET_MEMBER = ("couplings", 0, 2, 0)


@pytest.fixture(scope="module")
def network() -> Parts:
    return Parts.of(pack(of_zoo("resnet-basic")))


@pytest.mark.parametrize(
    "change",
    [
        put(*NET_MEMBER, 0, "no.such.tensor"),
        put(*NET_MEMBER, 0, "relu"),
        put(*NET_MEMBER, 1, 5),
        put(*NET_MEMBER, 2, [10**6]),
        put(*NET_MEMBER, 2, []),
        put(*NET_MEMBER, 3, 10**6),
        put(*NET_MEMBER, 3, 2**39),
        put("couplings", 0, 3, [["no.such", "heads", 1]]),
        put("couplings", 0, 3, [["layer1", "forward", 1]]),
        put("couplings", 0, 3, [["layer1", "__class__", 1]]),
        put("couplings", 0, 3, [["layer1", "training", 1]]),
        put("couplings", 0, 3, [["layer1.0.conv1", "weight", 1]]),
        put("couplings", []),
        put("rows", []),
        put("rows", 0, 1, 9),
        put("activations", [["no.such", "input", 1.0, 0]]),
    ],
)
def test_surgery_that_does_not_fit_is_refused(network: Parts, change: Callable[[Fields], Any]) -> None:
    with pytest.raises(FormatError):
        load(network.edited(change).pack(), BY_NAME["resnet-basic"].factory)


def test_open_file_refuses_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "bad.hirelc"
    path.write_bytes(PRUNED[:-1])
    with pytest.raises(FormatError, match=r"bad\.hirelc: the header announces") as caught:
        hirelc.open_file(path)
    assert caught.value.offset == 12
