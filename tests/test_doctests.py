"""The examples in docstrings run, in a folder that holds a finished run, with the names that they take for granted."""

from __future__ import annotations

import doctest
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hirelc
from hirelc.progress import Silent

MODULES = (
    "hirelc.artifact.inspect",
    "hirelc.config",
    "hirelc.data",
    "hirelc.formats",
    "hirelc.models",
    "hirelc.network.trace",
    "hirelc.picking",
    "hirelc.pipeline",
    "hirelc.policy",
    "hirelc.resuming",
    "hirelc.task",
    "hirelc.timing",
)
SLOW = ("hirelc.export.bench", "hirelc.export.onnx")


def make_net() -> nn.Module:
    torch.manual_seed(0)
    blocks = (nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)) for _ in range(2))
    return nn.Sequential(nn.Linear(8, 16), *blocks, nn.Linear(16, 2))


def samples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long()


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the examples may use; the current folder holds runs/mine."""
    small = hirelc.Config(
        fisher_samples=32,
        calibration_samples=32,
        search=hirelc.SearchConfig(cycles=1, trials=1, low_level_steps=8, high_level_steps=8),
        train=hirelc.TrainConfig(images=1200, batch_size=32, evaluations=2, precision="fp32"),
    )
    given = {"net": make_net(), "make_net": make_net, "train": samples(256, 0), "val": samples(64, 1), "config": small}
    before, folder = Path.cwd(), tmp_path_factory.mktemp("doctests")
    os.chdir(folder)
    data = {"train": given["train"], "val": given["val"], "config": small}
    hirelc.compress(given["net"], goal=hirelc.Goal(ratio=3), out="runs/mine", reporter=Silent(), **data)
    yield {"hirelc": hirelc, "torch": torch, **given}
    os.chdir(before)


def run(module: str, names: dict[str, Any]) -> None:
    found = [test for test in doctest.DocTestFinder().find(importlib.import_module(module)) if test.examples]
    assert found, f"{module} has no examples any more"
    for test in found:
        test.globs.update(names)
        said: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
        assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str, names: dict[str, Any]) -> None:
    run(module, names)


@pytest.mark.slow
@pytest.mark.parametrize("module", SLOW)
def test_examples_of_the_export(module: str, names: dict[str, Any]) -> None:
    run(module, names)


def test_no_example_is_left_out() -> None:
    source = Path(hirelc.__file__).parent
    having = {path for path in source.rglob("*.py") if ">>> " in path.read_text()}
    modules = {
        ".".join(("hirelc", *path.relative_to(source).with_suffix("").parts)).removesuffix(".__init__") for path in having
    }
    assert modules == {*MODULES, *SLOW}
