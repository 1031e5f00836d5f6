"""What the network is for, as a value: how its output is read, its loss, its metric.

    hirelc.Task(loss=my_loss, metric=my_score)                   # any network, any loss, any metric
    hirelc.find_task("segmentation")                             # one of those by name

Points are the unit of every metric: higher is better, and "half a point lost" means 0.5 less of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hirelc.errors import NetworkError, RunError
from hirelc.metrics import IGNORED, Metric, Summed, alike, confusion, explained, hits, mean_iou, mean_score

Loss = Callable[[Tensor, Tensor], Tensor]
Teach = Callable[[Tensor, Tensor, Tensor, float], Tensor]
Label = Callable[[Tensor, torch.Generator | None], Tensor]

TARGETS = ("classes", "positions", "tokens", "values", "none", "any")
LEAST_LOG = -1e4  # of a probability
FIELDS = ("logits", "out", "last_hidden_state")  # of an output with several tensors, in the order of preference


def logits_of(outputs: Any) -> Tensor:
    """The tensor that a task is about: the output itself, its `logits`, or its first tensor.

    :param outputs: a tensor, a tuple or list, a mapping, or a ModelOutput of transformers
    :raises NetworkError: there is no tensor in it
    """
    if isinstance(outputs, Tensor):
        return outputs
    for name in FIELDS:
        found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
        if isinstance(found, Tensor):
            return found
    parts = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if isinstance(parts, tuple | list) and parts:
        return logits_of(parts[0])
    raise NetworkError(
        f"the network returns {type(outputs).__name__}: expected a tensor, or an output with logits; "
        "say how it is read with Task(unpack=...)"
    )


@dataclass(frozen=True)
class Task:
    """A loss to train by and a metric to judge by, of one tensor that the network gives.

    >>> def distance(outputs, targets):
    ...     return (outputs - targets).abs().mean(-1)
    >>> task = hirelc.Task(lambda o, t: distance(o, t).mean(), distance, higher_is_better=False, scale=1, unit="m")
    >>> meter = task.meter()
    >>> meter.add(torch.zeros(4, 2), torch.full((4, 2), 1.5))
    >>> meter.points()
    -1.5

    :param loss: (outputs, targets) -> mean loss, a scalar
    :param metric: (outputs, targets) -> one score per sample, its mean times `scale` being the points; or a `Metric`
        (`hirelc.metrics.Summed`, `Gathered`), which says points itself
    :param name: how people call the metric
    :param unpack: what the network returns -> the tensor that loss, metric, teacher and proxy see; by default the
        tensor itself, its `logits`, or its first tensor
    :param teach: (outputs, the teacher's outputs, targets, temperature) -> distillation loss; by default the mean
        squared difference
    :param higher_is_better: False turns the sign of a metric of scores, an error for instance
    :param scale: points of a score of 1: 100 makes percent of a share
    :param unit: behind the number, for people
    :param targets: what they must be: "classes" (whole numbers from 0, one a sample), "positions" (the same for each
        position of a sequence or map, -100 being ignored), "tokens" (like positions, the token at each
        position), "values" (finite numbers), "none" (there are none: `label` makes them), or "any" (not checked)
    :param class_dim: dimension of the outputs that runs over the classes
    :param label: (outputs of the original, generator) -> targets, when there are no others; with a generator they are
        drawn from what the outputs predict, for the Fisher information
    :param settle: the raw output of the network -> the task to use, for a task that depends on it
    """

    loss: Loss
    metric: Metric | Callable[[Tensor, Tensor], Tensor]
    name: str = "score"
    unpack: Callable[[Any], Tensor] | None = None
    teach: Teach | None = None
    higher_is_better: bool = True
    scale: float = 100.0
    unit: str = "%"
    targets: str = "any"
    class_dim: int = -1
    label: Label | None = None
    settle: Callable[[Any], Task] | None = None

    def __post_init__(self) -> None:
        if self.targets not in TARGETS:
            raise RunError(f"Task.targets must be one of {', '.join(TARGETS)}, not {self.targets!r}")
        if (self.targets == "none") != (self.label is not None):
            raise RunError('a Task without targets needs a `label`, and a Task with a `label` has targets="none"')
        if not isinstance(self.metric, Metric):
            scale = self.scale if self.higher_is_better else -self.scale
            object.__setattr__(self, "metric", mean_score(self.metric, scale))
        elif not self.higher_is_better:
            raise RunError("a Metric gives points, higher is better: let it turn its sign itself")

    def outputs(self, raw: Any) -> Tensor:
        """The one tensor of what the network returned, in float32."""
        return (logits_of(raw) if self.unpack is None else self.unpack(raw)).float()

    def meter(self) -> Any:
        """A fresh reading of the metric."""
        return self.metric.meter()  # type: ignore[union-attr]

    def distill(self, outputs: Tensor, wanted: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """How far the outputs are from the teacher's, a scalar."""
        if self.teach is None:
            return F.mse_loss(outputs, wanted)
        return self.teach(outputs, wanted, targets, temperature)


# -- losses --------------------------------------------------------------------------------------------------


def soft_targets(class_dim: int = -1) -> Teach:
    """Kullback-Leibler divergence from the teacher's distribution, both softened; positions without a target are left out."""

    def teach(outputs: Tensor, wanted: Tensor, targets: Tensor, temperature: float) -> Tensor:
        # classes that a network masks have a logit of minus infinity: equal ones must differ by nothing, not by NaN
        student = F.log_softmax(outputs / temperature, class_dim).clamp(min=LEAST_LOG)
        teacher = F.log_softmax(wanted / temperature, class_dim).clamp(min=LEAST_LOG)
        each = F.kl_div(student, teacher, log_target=True, reduction="none").sum(class_dim)
        if targets.shape == each.shape and targets.dim() > 1:
            asked = targets != IGNORED
            return temperature**2 * (each * asked).sum() / asked.sum().clamp(min=1)
        return temperature**2 * each.mean()

    return teach


def _positions_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of (..., classes) against (...)."""
    return F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1), ignore_index=IGNORED)


def _next_token(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs at each position but the last, and the tokens that follow them."""
    return outputs[:, :-1], targets[:, 1:]


def _next_token_hits(outputs: Tensor, targets: Tensor) -> Tensor:
    return hits()(*_next_token(outputs, targets))


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(alike(outputs, targets), targets.float())


def _as_large(outputs: Tensor, targets: Tensor) -> Tensor:
    """Class maps in the size of the targets: many networks answer on a coarser grid."""
    if outputs.shape[2:] == targets.shape[1:]:
        return outputs
    return F.interpolate(outputs, size=targets.shape[1:], mode="bilinear", align_corners=False)


def _map_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(_as_large(outputs, targets), targets, ignore_index=IGNORED)


def _map_hits(outputs: Tensor, targets: Tensor) -> Tensor:
    return hits(1)(_as_large(outputs, targets), targets)


def _map_confusion(outputs: Tensor, targets: Tensor) -> Tensor:
    return confusion(_as_large(outputs, targets), targets, outputs.shape[1], 1)


# -- labels that the original gives ----------------------------------------------------------------------------


def own_classes(class_dim: int = -1) -> Label:
    """The original's first choice at each position; drawn from its distribution when there is a generator."""

    def label(outputs: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            return outputs.argmax(class_dim)
        shares = outputs.float().softmax(class_dim).movedim(class_dim, -1).cpu()
        drawn = torch.multinomial(shares.reshape(-1, shares.shape[-1]), 1, generator=generator)
        return drawn.reshape(shares.shape[:-1]).to(outputs.device)

    return label


def own_values(outputs: Tensor, generator: torch.Generator | None) -> Tensor:
    """The original's outputs; with Gaussian noise when there is a generator, for around themselves they have no slope."""
    if generator is None:
        return outputs
    noise = torch.randn(outputs.shape, generator=generator).to(outputs)
    return outputs + outputs.std() * noise if outputs.numel() > 1 else outputs + noise


# -- tasks by name ---------------------------------------------------------------------------------------------


def _classification(name: str) -> Task:
    return Task(F.cross_entropy, hits(), name, teach=soft_targets(), targets="classes")


def _segmentation(name: str, metric: Metric | Callable[[Tensor, Tensor], Tensor]) -> Task:
    return Task(_map_loss, metric, name, teach=soft_targets(1), targets="positions", class_dim=1)


CLASSIFICATION = _classification("top-1 accuracy")
REGRESSION = Task(_squared_error, explained(), "of the targets' variance explained (R2)", targets="values")
SEGMENTATION = _segmentation("pixel accuracy", _map_hits)
SEGMENTATION_IOU = _segmentation("mean IoU", Summed(_map_confusion, mean_iou))
TOKEN_CLASSIFICATION = Task(_positions_loss, hits(), "token accuracy", teach=soft_targets(), targets="positions")
LANGUAGE_MODEL = Task(
    loss=lambda outputs, targets: _positions_loss(*_next_token(outputs, targets)),
    metric=_next_token_hits,
    name="next-token accuracy",
    teach=soft_targets(),
    targets="tokens",
)
DISTILL_VALUES = Task(_squared_error, explained(), "of the original's output explained", targets="none", label=own_values)


def _agreement(class_dim: int) -> Task:
    """Cross-entropy to, and agreement with, the original's own first choice."""
    return Task(
        loss=lambda outputs, targets: F.cross_entropy(outputs.movedim(class_dim, 1), targets, ignore_index=IGNORED),
        metric=hits(class_dim),
        name="agreement with the original's first choice",
        teach=soft_targets(class_dim),
        targets="none",
        class_dim=class_dim,
        label=own_classes(class_dim),
    )


DISTILL_CLASSES, DISTILL_MAPS = _agreement(-1), _agreement(1)


def _what_there_is(raw: Any) -> Task:
    """Classes where the network itself calls its output logits, else values."""
    named = raw.get("logits") if isinstance(raw, Mapping) else getattr(raw, "logits", None)
    if not isinstance(named, Tensor):
        return DISTILL_VALUES
    return DISTILL_MAPS if named.dim() == 4 else DISTILL_CLASSES


DISTILL = Task(
    loss=DISTILL_VALUES.loss,
    metric=DISTILL_VALUES.metric,
    name="agreement with the original",
    targets="none",
    label=own_values,
    settle=_what_there_is,
)

TASKS: dict[str, Task] = {
    "image-classification": CLASSIFICATION,
    "text-classification": CLASSIFICATION,
    "regression": REGRESSION,
    "segmentation": SEGMENTATION,
    "segmentation-iou": SEGMENTATION_IOU,
    "token-classification": TOKEN_CLASSIFICATION,
    "language-model": LANGUAGE_MODEL,
    "distill": DISTILL,
    "distill-classes": DISTILL_CLASSES,
    "distill-values": DISTILL_VALUES,
}


def named_task(name: str) -> Task:
    """:raises RunError: there is no task of that name"""
    if name not in TASKS:
        raise RunError(f"unknown task {name!r}: use {', '.join(TASKS)}, or module:name of a hirelc.Task of your own")
    return TASKS[name]
