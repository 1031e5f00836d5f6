"""A fine-tune that was killed and goes on ends as if nothing had been."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hirelc.batches import Batches, as_batches
from hirelc.compression.activations import observe
from hirelc.compression.apply import CompressedNetwork, apply
from hirelc.compression.rate import FileGoal, RateTerm, kernel_bits
from hirelc.config import TrainConfig
from hirelc.errors import RunError
from hirelc.measure.finetune import Diverged, Trained, Trainer
from hirelc.measure.session import Saved, Session
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, Policy
from hirelc.task import CLASSIFICATION, Task
from hirelc.tensorfile import pack_tensors, unpack_tensors
from measure.small import data, samples, tiny

STEPS, BATCH = 12, 32  # eight batches an epoch
CONFIG = TrainConfig(images=STEPS * BATCH, batch_size=BATCH, precision="fp32", learning_rate=0.01, evaluations=4)


class Killed(Exception):
    pass


class InMemory:
    """As bytes, like a file; saves after the given steps."""

    def __init__(self, *steps: int) -> None:
        self.steps, self.asked, self.data = steps, 0, b""

    def load(self) -> Saved | None:
        return unpack_tensors(self.data, "memory") if self.data else None

    def due(self) -> bool:
        self.asked += 1
        return self.asked in self.steps

    def save(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        self.data = pack_tensors(tensors, record)


def written(network: CompressedNetwork) -> int:
    """A length that moves with the codes, without the time that coding takes."""
    return 400 + int(kernel_bits(network) / 8)


@cache
def original() -> nn.Module:
    return tiny()


def student(kind: str) -> nn.Module:
    return copy.deepcopy(fresh(kind))


@cache
def fresh(kind: str) -> nn.Module:
    network = original()
    if kind == "control":
        return network
    spec = trace(network, samples(2, 0)[0])
    policy = Policy.of({k.name: Choice(3, 0.75, granularity=Granularity.LEARNED) for k in spec.kernels})
    weights = {k.name: dict(network.named_parameters())[k.name].detach() ** 2 for k in spec.kernels}
    compressed = apply(network, spec, policy, weights)
    inputs = samples(32, 5)[0]
    compressed.quantize_activations(
        observe(compressed.network, list(weights), [inputs], run=lambda x: compressed.eval()(x)).sites
    )
    return compressed


def shuffled() -> Batches:
    """A loader with an order and noise of its own."""

    def noisy(items: list[Any]) -> tuple[Tensor, Tensor]:
        x, y = (torch.stack(part) for part in zip(*items, strict=True))
        return x + 0.1 * torch.randn_like(x), y

    return as_batches(DataLoader(TensorDataset(*samples(256, 0)), BATCH, shuffle=True, collate_fn=noisy), BATCH)


def finetune(kind: str, train: Batches, checkpoint: InMemory | None, killed_at: int = 0) -> tuple[Trained, dict[str, Tensor]]:
    made, seen = student(kind), 0

    def progress(images: int) -> None:
        nonlocal seen
        seen += images
        if killed_at and seen >= killed_at * BATCH:
            raise Killed

    goal = FileGoal(600, written) if isinstance(made, CompressedNetwork) else None
    trainer = Trainer(original(), train, data(96, 1), CLASSIFICATION, CONFIG, 0)
    torch.manual_seed(len(kind) + killed_at)  # whatever the process has done before
    trained = trainer.finetune(made, STEPS * BATCH, name="a", file_goal=goal, checkpoint=checkpoint, progress=progress)
    return trained, made.state_dict()


def same(one: tuple[Trained, dict[str, Tensor]], other: tuple[Trained, dict[str, Tensor]]) -> None:
    assert (one[0].images, one[0].best, one[0].scores) == (other[0].images, other[0].best, other[0].scores)
    assert one[0].final_loss == other[0].final_loss
    assert one[1].keys() == other[1].keys()
    assert all(torch.equal(tensor, other[1][name]) for name, tensor in one[1].items())


@pytest.mark.parametrize(
    ("kind", "source", "steps"),
    [("compressed", data, (1, 8)), ("compressed", shuffled, (9,)), ("control", data, (5,))],
)
def test_it_ends_as_if_never_interrupted(kind: str, source: Any, steps: tuple[int, ...]) -> None:
    whole = finetune(kind, source(), None)
    assert len({score for _, score in whole[0].scores}) > 1
    for step in steps:
        checkpoint = InMemory(step)
        with pytest.raises(Killed):
            finetune(kind, source(), checkpoint, killed_at=step + 1)
        same(finetune(kind, source(), checkpoint), whole)


def test_killed_again_and_again_and_after_its_end() -> None:
    whole = finetune("compressed", data(), None)
    checkpoint = InMemory(3)
    for step in (6, 9, 12):
        checkpoint.asked = 0
        with pytest.raises(Killed):
            finetune("compressed", data(), checkpoint, killed_at=step)
    end = finetune("compressed", data(), checkpoint)
    same(end, whole)
    again = finetune("compressed", data(), checkpoint)
    assert again[0] == end[0]
    same(again, whole)


def test_a_state_of_another_network_is_refused() -> None:
    checkpoint = InMemory(3)
    with pytest.raises(Killed):
        finetune("control", data(), checkpoint, killed_at=5)
    with pytest.raises(RunError, match="of another network"):
        finetune("compressed", data(), checkpoint)


def test_a_loss_that_explodes_ends_it() -> None:
    honest = CLASSIFICATION.loss
    calls = []

    def exploding(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        return honest(outputs, targets) * (1e8 if len(calls) > 3 else 1.0)

    task = Task(exploding, CLASSIFICATION.metric)
    trainer = Trainer(original(), data(), data(96, 1), task, CONFIG, 0)
    with pytest.raises(Diverged, match=r"the loss became \d.*e\+0\d after 96 images"):
        trainer.finetune(student("control"), STEPS * BATCH, name="a")


def test_nothing_that_a_session_moves_is_left_out() -> None:
    """What is added to the session must be saved too."""
    trainer = Trainer(original(), data(), data(96, 1), CLASSIFICATION, CONFIG, 0)
    made = student("compressed")
    assert isinstance(made, CompressedNetwork)
    from hirelc.measure import session as module
    from hirelc.measure.finetune import _optimizer

    rate = RateTerm(made, FileGoal(600, written), STEPS)
    session = Session(made, _optimizer(made, 0.01, 0.0), rate, lambda: trainer._validate(made, "fp32"))
    assert set(vars(rate)) == {*module._RATE_NUMBERS, "costs", "compressed", "goal", "steps", "weights", "gain"}
    kept = {*module._OWN_NUMBERS, "scores", "peaks", "best"}
    assert set(vars(session)) == {*kept, "student", "optimizer", "rate"}
