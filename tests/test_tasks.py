"""One run for each kind of task: the file loads and gives the metric that was reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import hirelc
import small_tasks as small
from hirelc.batches import Batches
from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.data import Splits, load_data
from hirelc.labelled import Labelled
from hirelc.measure.evaluate import accuracy
from hirelc.models import answers, settled
from hirelc.pipeline import compress
from hirelc.policy import Goal
from hirelc.progress import Silent
from hirelc.store import read_journal
from hirelc.task import named_task

CONFIG = Config(
    fisher_samples=16,
    calibration_samples=16,
    search=SearchConfig(cycles=2, low_level_steps=16, high_level_steps=16, surrogate_min_samples=2),
    train=TrainConfig(images=1600, batch_size=32, precision="fp32", evaluations=2, control=False),
)


@dataclass(frozen=True)
class Case:
    """A kind of task.

    :param better_than: points that saying always the same would give
    """

    name: str
    task: str
    factory: Callable[[], nn.Module]
    data: Callable[[Path], Splits]
    better_than: float
    epochs: int = 6


def texts(targets: str, count: int = 400, columns: str = "text,label") -> Callable[[Path], Splits]:
    def load(folder: Path) -> Splits:
        path = small.write_csv(folder / "reviews.csv", small.reviews(count))
        tokenizer = small.save_tokenizer(folder / "tokenizer")
        return load_data(f"csv:{path}:{columns}", batch_size=32, targets=targets, tokenizer=tokenizer)

    return load


def arrays(targets: str, x: Any, y: Any = None) -> Callable[[Path], Splits]:
    def load(folder: Path) -> Splits:
        np.savez(folder / "data.npz", x=x, **({} if y is None else {"y": y}))
        return load_data(f"npz:{folder / 'data.npz'}", batch_size=32, targets=targets)

    return load


CASES = [
    Case("bert", "text-classification", small.tiny_bert, texts("classes"), 60),
    Case("llama", "language-model", small.tiny_llama, texts("tokens", columns="text"), 40),
    Case("u-net", "segmentation", small.UNet, arrays("positions", *small.maps(400)), 75),
    Case("signals", "regression", small.Signals, arrays("values", *small.waves(400)), 50, epochs=12),
    Case("encoder", "distill", small.tiny_encoder, texts("none", columns="text"), 50, epochs=0),
]


# what the agents decide is not the point here, and they take most of the time: one default run with them will do
RUNS = [pytest.param(case, "hirelc" if case.name == "u-net" else "uniform", id=case.name) for case in CASES]
RUNS += [
    pytest.param(case, "hirelc", id=f"{case.name}-agents", marks=pytest.mark.slow) for case in CASES if case.name != "u-net"
]


@pytest.mark.parametrize(("case", "strategy"), RUNS)
def test_every_kind_of_task_is_compressed_measured_and_read_back(case: Case, strategy: str, tmp_path: Path) -> None:
    task, splits = named_task(case.task), case.data(tmp_path)
    network = small.train(case.factory(), splits.train, task, case.epochs)
    out = tmp_path / "run"
    result = compress(
        network,
        splits.train,
        splits.validation,
        Goal(ratio=4),
        out,
        test=splits.test,
        config=replace(CONFIG, search=replace(CONFIG.search, strategy=strategy)),
        task=task,
        reporter=Silent(),
    )
    assert result.shortfall is None and result.compressed.ratio >= 4
    assert result.original.validation > case.better_than
    assert case.better_than < result.compressed.validation <= 100
    data: Batches = splits.validation
    if task.label is not None:
        task = settled(task, network, data)
        data = Labelled(data, answers(network, task))
        assert result.original.validation == result.original.test == 100, "the original agrees with itself"
    read_back = hirelc.load(result.path, case.factory)
    assert accuracy(read_back, data, task) == result.compressed.validation
    assert accuracy(network, data, task) == result.original.validation
    sensitivity = next(event for event in read_journal(out) if event["event"] == "sensitivity")
    assert max(sensitivity["kernels"].values()) == 1 and min(sensitivity["kernels"].values()) == 0
    assert sum(value > 0 for value in sensitivity["kernels"].values()) >= len(sensitivity["kernels"]) - 3
