"""Tasks and metrics as values: definitions written out, shapes, units, and what is refused."""

from __future__ import annotations

import math
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hirelc.batches import TensorBatches
from hirelc.errors import DataError, NetworkError, RunError
from hirelc.measure.evaluate import accuracy
from hirelc.metrics import Gathered, explained, mean_iou
from hirelc.models import check_task, find_task, settled
from hirelc.task import (
    CLASSIFICATION,
    DISTILL,
    DISTILL_CLASSES,
    DISTILL_MAPS,
    DISTILL_VALUES,
    LANGUAGE_MODEL,
    REGRESSION,
    SEGMENTATION,
    SEGMENTATION_IOU,
    TASKS,
    TOKEN_CLASSIFICATION,
    Task,
    logits_of,
    named_task,
)

HALVES = Task(loss=F.mse_loss, metric=lambda outputs, targets: (outputs[:, 0] > targets).float())


def points(task: Task, outputs: Tensor, targets: Tensor, batch: int) -> float:
    meter = task.meter()
    for start in range(0, len(outputs), batch):
        meter.add(outputs[start : start + batch], targets[start : start + batch])
    return float(meter.points())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def labels(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


# ---- what a network may return


class Output(dict[str, Tensor]):
    """As a ModelOutput of transformers: a mapping whose keys are attributes."""

    __getattr__ = dict.__getitem__


TENSOR = torch.arange(6.0).reshape(2, 3)
Pair = namedtuple("Pair", ["first", "logits"])
RETURNED: dict[str, Any] = {
    "tensor": TENSOR,
    "tuple": (TENSOR, torch.zeros(1)),
    "list in tuple": ([TENSOR], 3),
    "named tuple": Pair(torch.zeros(1), TENSOR),
    "dict": {"aux": torch.zeros(1), "out": TENSOR},
    "logits before hidden": Output(last_hidden_state=torch.zeros(1), logits=TENSOR),
    "hidden": Output(last_hidden_state=TENSOR, pooler_output=torch.zeros(1)),
    "first": Output(predicted_depth=TENSOR),
    "attribute": SimpleNamespace(logits=TENSOR),
}


@pytest.mark.parametrize("returned", RETURNED.values(), ids=RETURNED.keys())
def test_the_one_tensor_of_an_output(returned: Any) -> None:
    assert logits_of(returned) is TENSOR
    assert torch.equal(CLASSIFICATION.outputs(returned), TENSOR)


@pytest.mark.parametrize("returned", [None, 3, "x", (), {}, {"a": None}, SimpleNamespace()])
def test_an_output_without_a_tensor(returned: Any) -> None:
    with pytest.raises(NetworkError, match="unpack"):
        logits_of(returned)


def test_unpack_says_how_an_output_is_read() -> None:
    task = Task(F.mse_loss, lambda o, t: o[:, 0], unpack=lambda raw: torch.cat([raw["a"], raw["b"]], 1))
    found = task.outputs({"a": torch.zeros(2, 1, dtype=torch.bfloat16), "b": torch.ones(2, 2, dtype=torch.bfloat16)})
    assert found.shape == (2, 3) and found.dtype == torch.float32


# ---- metrics, each against its definition; the batches they are read in do not matter


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_accuracies_are_shares_of_right_answers(batch: int) -> None:
    outputs, targets = random(10, 7, 4), labels(4, 10, 7)
    targets[:, 5:] = -100
    right = (outputs.argmax(-1) == targets)[:, :5].float()
    assert points(TOKEN_CLASSIFICATION, outputs, targets, batch) == pytest.approx(100 * float(right.mean()))
    following = (outputs[:, :4].argmax(-1) == targets[:, 1:5]).float()
    assert points(LANGUAGE_MODEL, outputs, targets, batch) == pytest.approx(100 * float(following.mean()))
    flat = (outputs[:, 0].argmax(-1) == targets[:, 0]).float()
    assert points(CLASSIFICATION, outputs[:, 0], targets[:, 0], batch) == pytest.approx(100 * float(flat.mean()))


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_maps_by_pixel_and_by_class(batch: int) -> None:
    outputs, targets = random(6, 3, 8, 8), labels(3, 6, 8, 8)
    targets[:, 0] = -100
    guess, asked = outputs.argmax(1), targets != -100
    right = (guess == targets)[asked].float()
    assert points(SEGMENTATION, outputs, targets, batch) == pytest.approx(100 * float(right.mean()))
    each = []
    for kind in range(3):
        here, there = (guess == kind) & asked, (targets == kind) & asked
        each.append(float((here & there).sum() / (here | there).sum()))
    assert points(SEGMENTATION_IOU, outputs, targets, batch) == pytest.approx(100 * sum(each) / 3)
    assert mean_iou(torch.tensor([[4.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]])) == pytest.approx(100 * (0.5 + 0) / 2)


def test_coarse_maps_are_judged_in_the_size_of_the_targets() -> None:
    coarse, targets = random(2, 3, 4, 4), labels(3, 2, 8, 8)
    large = F.interpolate(coarse, size=(8, 8), mode="bilinear", align_corners=False)
    assert points(SEGMENTATION, coarse, targets, 1) == points(SEGMENTATION, large, targets, 2)
    assert torch.equal(SEGMENTATION.loss(coarse, targets), SEGMENTATION.loss(large, targets))


@pytest.mark.parametrize("batch", [1, 7, 50])
@pytest.mark.parametrize("shape", [(50,), (50, 3), (50, 2, 5)])
def test_explained_variance(shape: tuple[int, ...], batch: int) -> None:
    targets = 3 + random(*shape)
    outputs = targets + 0.5 * random(*shape, seed=1)
    dims = tuple(range(len(shape))) if len(shape) > 2 else (0,)
    share = 1 - (outputs - targets).square().sum(dims) / (targets - targets.mean(dims, keepdim=True)).square().sum(dims)
    assert points(REGRESSION, outputs, targets, batch) == pytest.approx(100 * float(share.mean()), abs=1e-3)
    assert points(REGRESSION, targets, targets, batch) == 100
    assert points(REGRESSION, targets.mean(dims, keepdim=True).expand(shape), targets, batch) == pytest.approx(0, abs=1e-3)


def test_one_column_is_one_number() -> None:
    outputs, targets = random(9, 1), random(9, seed=1)
    assert points(REGRESSION, outputs, targets, 4) == points(REGRESSION, outputs[:, 0], targets, 9)
    assert torch.equal(REGRESSION.loss(outputs, targets), F.mse_loss(outputs[:, 0], targets))
    with pytest.raises(DataError, match="make them alike"):
        REGRESSION.loss(random(9, 2), targets)
    with pytest.raises(DataError, match="do not vary"):
        points(REGRESSION, outputs, torch.ones(9), 9)


def test_scores_errors_and_whole_splits_become_points() -> None:
    outputs, targets = random(8, 2), random(8, seed=1)
    share = float((outputs[:, 0] > targets).float().mean())
    assert points(HALVES, outputs, targets, 3) == pytest.approx(100 * share)
    error = Task(F.mse_loss, lambda o, t: (o[:, 0] - t).abs(), higher_is_better=False, scale=1.0)
    assert points(error, outputs, targets, 3) == pytest.approx(-float((outputs[:, 0] - targets).abs().mean()))
    middle = Task(F.mse_loss, Gathered(lambda o, t: float((o[:, 0] - t).median())))
    assert points(middle, outputs, targets, 3) == pytest.approx(float((outputs[:, 0] - targets).median()))
    assert math.isnan(middle.meter().points()) and math.isnan(explained().meter().points())


def test_a_metric_that_is_no_number_is_an_error() -> None:
    broken = Task(F.mse_loss, lambda outputs, targets: outputs[:, 0] * math.nan, name="nothing")
    with pytest.raises(DataError, match="nothing is nan on 4 samples"):
        accuracy(nn.Linear(2, 2), TensorBatches(random(4, 2), random(4)), broken)


# ---- the teacher


def test_soft_targets_are_zero_for_the_teacher_itself_and_skip_what_is_not_asked() -> None:
    outputs, wanted = random(3, 4, 5), random(3, 4, 5, seed=1)
    targets = labels(5, 3, 4)
    assert float(TOKEN_CLASSIFICATION.distill(wanted, wanted, targets, 2.0)) == pytest.approx(0, abs=1e-6)
    targets[:, 2:] = -100
    moved = outputs.clone()
    moved[:, 2:] += random(3, 2, 5, seed=2)
    found = TOKEN_CLASSIFICATION.distill(outputs, wanted, targets, 2.0)
    assert float(found) > 0 and torch.equal(found, TOKEN_CLASSIFICATION.distill(moved, wanted, targets, 2.0))
    each = F.kl_div((outputs / 2).log_softmax(-1), (wanted / 2).log_softmax(-1), log_target=True, reduction="none").sum(-1)
    assert float(found) == pytest.approx(4 * float(each[:, :2].mean()), rel=1e-5)
    maps, other = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    by_pixel = F.kl_div(maps.log_softmax(1), other.log_softmax(1), log_target=True, reduction="none").sum(1).mean()
    assert float(SEGMENTATION.distill(maps, other, labels(3, 2, 4, 4), 1.0)) == pytest.approx(float(by_pixel), rel=1e-5)


def test_classes_that_the_network_masks_cost_nothing() -> None:
    outputs, wanted = random(4, 5), random(4, 5, seed=1)
    masked = [part.masked_fill(torch.arange(5) == 3, -math.inf) for part in (outputs, wanted)]
    rest = [part[:, torch.arange(5) != 3] for part in (outputs, wanted)]
    targets = torch.zeros(4, dtype=torch.long)
    found = CLASSIFICATION.distill(masked[0], masked[1], targets, 2.0)
    assert float(found) == pytest.approx(float(CLASSIFICATION.distill(rest[0], rest[1], targets, 2.0)), rel=1e-5)


def test_without_a_teacher_of_its_own_a_task_follows_the_values() -> None:
    assert float(HALVES.distill(torch.zeros(2, 2), torch.ones(2, 2), torch.zeros(2), 9.0)) == 1


# ---- tasks without targets


@pytest.mark.parametrize(("task", "shape", "dim"), [(DISTILL_CLASSES, (400, 3), -1), (DISTILL_MAPS, (40, 3, 5, 4), 1)])
def test_labels_are_the_originals_first_choice_or_drawn_from_it(task: Task, shape: tuple[int, ...], dim: int) -> None:
    outputs = random(1, *shape[1:]).expand(shape)
    assert task.label is not None
    assert torch.equal(task.label(outputs, None), outputs.argmax(dim))
    assert points(task, outputs, task.label(outputs, None), 7) == 100
    drawn = torch.cat([task.label(outputs, torch.Generator().manual_seed(seed)) for seed in range(20)])
    for kind in range(3):
        expected = outputs.softmax(dim).select(dim, kind).mean()
        assert float((drawn == kind).float().mean()) == pytest.approx(float(expected), abs=0.03)


def test_values_are_the_originals_own_and_noisy_for_the_fisher() -> None:
    outputs, label = random(50, 6), DISTILL_VALUES.label
    assert label is not None and label(outputs, None) is outputs
    noisy = label(outputs, torch.Generator().manual_seed(0))
    assert float((noisy - outputs).std()) == pytest.approx(float(outputs.std()), rel=0.15)
    assert points(DISTILL_VALUES, outputs, outputs, 9) == 100


class Head(nn.Module):
    def __init__(self, name: str | None, *shape: int) -> None:
        super().__init__()
        self.linear, self.name, self.shape = nn.Linear(4, math.prod(shape)), name, shape

    def forward(self, x: Tensor) -> Any:
        y = self.linear(x).reshape(len(x), *self.shape)
        return y if self.name is None else {self.name: y}


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (Head(None, 3), DISTILL_VALUES),
        (Head("last_hidden_state", 5, 3), DISTILL_VALUES),
        (Head("logits", 3), DISTILL_CLASSES),
        (Head("logits", 5, 3), DISTILL_CLASSES),
        (Head("logits", 3, 2, 2), DISTILL_MAPS),
    ],
)
def test_distillation_follows_what_the_network_says_it_gives(network: nn.Module, expected: Task) -> None:
    data = TensorBatches(random(4, 4), torch.zeros(4))
    assert settled(DISTILL, network, data) is expected
    assert settled(REGRESSION, network, data) is REGRESSION


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": "words"}, "must be one of"),
        ({"targets": "none"}, "needs a `label`"),
        ({"label": lambda o, g: o}, 'has targets="none"'),
        ({"metric": explained(), "higher_is_better": False}, "turn its sign itself"),
    ],
)
def test_tasks_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        Task(**{"loss": F.mse_loss, "metric": lambda o, t: o[:, 0], **settings})


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task(lambda o, t: o - t, lambda o, t: t), r"one finite number, it is shape \(2, 3\)"),
        (Task(lambda o, t: o.sum() * math.nan, lambda o, t: t), "one finite number, it is tensor"),
        (Task(lambda o, t: 3, lambda o, t: t), "one finite number, it is 3"),
        (Task(lambda o, t: F.mse_loss(o, t[:, :2]), lambda o, t: t), r"fails on outputs of shape \(2, 3\)"),
        (Task(F.mse_loss, lambda o, t: o @ t), "fails on outputs"),
    ],
)
def test_a_loss_or_metric_that_does_not_fit_is_found_first(task: Task, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_task(nn.Linear(4, 3), TensorBatches(random(4, 4), random(4, 3)), "cpu", task)


def test_tasks_by_name() -> None:
    assert all(named_task(name) is task for name, task in TASKS.items())
    with pytest.raises(RunError, match=r"unknown task 'chess': use image-classification, .*module:name"):
        find_task("chess")
    assert find_task("test_task:HALVES").unit == "%"
    with pytest.raises(RunError, match=r"is a version_info|name a hirelc.Task"):
        find_task("sys:version_info")
    with pytest.raises(NetworkError, match="no_such_module"):
        find_task("no_such_module:TASK")
