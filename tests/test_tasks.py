"""One run for each kind of task: the file loads and gives the metric that was reported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hirelc
import small_tasks as small
from hirelc.batches import Batches, as_batches, map_inputs
from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.data import Splits, load_data
from hirelc.errors import HirelcError, RunError
from hirelc.labelled import Labelled
from hirelc.measure.evaluate import accuracy
from hirelc.models import answers, settled
from hirelc.network.calling import call
from hirelc.pipeline import compress
from hirelc.policy import Goal
from hirelc.progress import Silent
from hirelc.store import read_journal
from hirelc.task import CLASSIFICATION, REGRESSION, Task, named_task
from measure.small import tiny

CONFIG = Config(
    fisher_samples=16,
    calibration_samples=16,
    search=SearchConfig(cycles=2, trials=1, low_level_steps=16, high_level_steps=16, surrogate_min_samples=2),
    train=TrainConfig(images=1300, batch_size=32, precision="fp32", evaluations=2, control=False),
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


OWN = Task(
    loss=lambda outputs, targets: (outputs - targets).abs().mean(),
    metric=lambda outputs, targets: (outputs - targets).abs().amax(-1),
    name="worst error",
    unpack=lambda raw: torch.cat([raw["place"], raw["energy"]], -1),
    higher_is_better=False,
    scale=10.0,
    unit="tenths",
)
UNIFORM = replace(CONFIG, search=replace(CONFIG.search, strategy="uniform", cycles=1))


def test_a_task_of_ones_own_with_several_inputs_and_outputs(tmp_path: Path) -> None:
    x, y = small.things(400)
    parts = [(map_inputs(x, lambda t, a=a, b=b: t[a:b]), y[a:b]) for a, b in ((0, 320), (320, 400))]  # type: ignore[misc]
    network = small.train(small.Pairs(), as_batches(parts[0], 32), OWN, 30)
    result = compress(network, *parts, Goal(ratio=3), tmp_path / "run", config=UNIFORM, task=OWN, reporter=Silent())
    with torch.no_grad():
        outputs = OWN.outputs(call(network, parts[1][0]))
    worst = (outputs - parts[1][1]).abs().amax(-1).mean()
    assert result.original.validation == pytest.approx(-10 * float(worst), rel=1e-4)
    read_back = hirelc.load(result.path, small.Pairs)
    assert accuracy(read_back, as_batches(parts[1], 32), OWN) == pytest.approx(result.compressed.validation, rel=1e-6)
    assert -10 < result.compressed.validation < 0 and result.compressed.ratio >= 3


FAULTS: list[tuple[str, Callable[[], tuple[Any, Any]], Task, str]] = [
    ("one class", lambda: ((X, Y * 0), (X, Y)), CLASSIFICATION, "fine-tuning split holds one class only"),
    ("no labels", lambda: (TensorDataset(X), (X, Y)), CLASSIFICATION, "pairs"),
    ("words for numbers", lambda: ((X, Y), (X, Y.float() / 3)), CLASSIFICATION, "not whole numbers"),
    ("values of another width", lambda: ((X, X), (X, X)), REGRESSION, "make them alike|4 values"),
    ("values that are none", lambda: ((X, X * torch.nan), (X, X)), REGRESSION, "NaN or infinite targets"),
    ("maps of labels", lambda: ((X, X.long() % 4), (X, X.long() % 4)), CLASSIFICATION, "fails on outputs of shape"),
    ("a loss that fails", lambda: ((X, Y), (X, Y)), OWN, "unpack of the task .* fails on a Tensor"),
]
X, Y = torch.randn(96, 6, generator=torch.Generator().manual_seed(0)), torch.arange(96) % 4


@pytest.mark.parametrize(("data", "task", "message"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_data_that_do_not_fit_the_task_are_refused_before_anything_is_written(
    data: Callable[[], tuple[Any, Any]], task: Task, message: str, tmp_path: Path
) -> None:
    with pytest.raises(HirelcError, match=message) as caught:
        compress(tiny(), *data(), Goal(ratio=3), tmp_path / "run", config=UNIFORM, task=task, reporter=Silent())
    assert not (tmp_path / "run").exists() and "\n" not in str(caught.value)


def test_a_class_that_training_never_sees_is_said(tmp_path: Path) -> None:
    said: list[str] = []

    class Ears(Silent):
        def warn(self, text: str) -> None:
            said.append(text)

    three = Y != 2
    with contextlib.suppress(RunError):  # a goal that the tiny run misses is another matter
        compress(tiny(), (X[three], Y[three]), (X, Y), Goal(ratio=3), tmp_path / "run", config=UNIFORM, reporter=Ears())
    assert "1 classes do not occur in the fine-tuning split: 2" in said
