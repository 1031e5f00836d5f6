"""Metric and loss beyond the original's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from hirelc.measure import judge as module
from hirelc.measure.evaluate import accuracy
from hirelc.measure.judge import Judge
from hirelc.policy import Verdict
from hirelc.task import CLASSIFICATION
from measure.small import CLASSES, data, samples, tiny


def worse(amount: float) -> torch.nn.Module:
    network = tiny()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            parameter += amount * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator)
    return network


def test_the_original_exceeds_itself_by_nothing_and_damage_by_more() -> None:
    judge = Judge(tiny(), data(96, 1), CLASSIFICATION, 2.0)
    found = [judge(worse(amount)) for amount in (0.0, 0.6, 1.0)]
    assert found[0].excess_loss == pytest.approx(0.0, abs=1e-6)
    losses = [verdict.excess_loss for verdict in found]
    assert losses == sorted(losses) and losses[1] > 1e-3
    assert [v.points for v in found] == [accuracy(worse(a), data(96, 1), CLASSIFICATION) for a in (0.0, 0.6, 1.0)]
    assert found[1].beats(found[2]) and not found[2].beats(found[1])


def test_outputs_that_are_too_many_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Judge(tiny(), data(96, 1), CLASSIFICATION, 2.0)(worse(0.3))
    monkeypatch.setattr(module, "KEPT_BYTES", 10)
    judge = Judge(tiny(), data(96, 1), CLASSIFICATION, 2.0)
    assert judge._wanted is None and judge(worse(0.3)).excess_loss == pytest.approx(kept.excess_loss)


def test_a_loss_that_is_no_number_is_none() -> None:
    task = replace(CLASSIFICATION, loss=lambda outputs, targets: outputs.sum() * math.inf)
    verdict = Judge(tiny(), data(96, 1), task, 2.0)(worse(0.1))
    assert verdict.excess_loss is None and verdict.points > 0
    assert Verdict(60.0).beats(Verdict(59.0, 0.1)) and not Verdict(58.0, 0.1).beats(Verdict(59.0))


def test_the_tasks_own_loss_decides_more_than_likeness_to_the_original() -> None:
    """A network that is right where the original is wrong, and one that is nearly the original."""
    x, y = samples(96, 1)
    original, judge = tiny(), Judge(tiny(), data(96, 1), CLASSIFICATION, 2.0)

    class Knowing(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            right = torch.stack([y[int((x == row).all(1).nonzero()[0])] for row in inputs])
            return original(inputs) + 2 * torch.nn.functional.one_hot(right, CLASSES)

    assert judge(Knowing()).beats(judge(worse(0.05)))
