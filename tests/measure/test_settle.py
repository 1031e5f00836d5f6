from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hirelc.config import TrainConfig
from hirelc.measure.finetune import Trainer
from hirelc.measure.settle import settle, settling_batches
from hirelc.policy import Verdict
from hirelc.task import CLASSIFICATION
from measure.small import data, tiny


class Spare(nn.Module):
    """One norm that is called and one that is not; dropout that must not disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.norm, self.unused = nn.Dropout(0.5), nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        self.unused.running_mean.fill_(7.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.dropout(x))


def batches(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(16, 3, generator=generator) + 5 for _ in range(count)]


def test_statistics_are_plain_means_over_all_batches() -> None:
    network, given = Spare(), batches(9)
    settle(network, given, network)
    assert torch.allclose(network.norm.running_mean, torch.stack([b.mean(0) for b in given]).mean(0), atol=1e-5)
    assert torch.allclose(network.norm.running_var, torch.stack([b.var(0) for b in given]).mean(0), atol=1e-5)
    assert network.norm.momentum == 0.1 and not network.norm.training


def test_norms_that_are_not_called_or_see_no_number_keep_theirs() -> None:
    network = Spare()
    settle(network, [torch.full((4, 3), float("nan"))], network)
    assert network.unused.running_mean.tolist() == [7.0] * 3
    assert network.norm.running_mean.tolist() == [0.0] * 3 and int(network.norm.num_batches_tracked) == 0


def test_a_part_of_a_fine_tune_settles_norms_half_of_a_short_one() -> None:
    assert settling_batches(nn.Linear(2, 2), 1000) == 0
    assert [settling_batches(Spare(), n) for n in (1, 6, 100, 160, 400, 10_000)] == [0, 3, 8, 8, 20, 60]


def test_a_fine_tune_keeps_what_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(batch_size=32, precision="fp32", evaluations=2)
    for last, kept in ((99.0, True), (10.0, False)):
        student, scores = tiny(), map(Verdict, [50.0, 60.0, 70.0, last])
        settled = []
        monkeypatch.setattr(Trainer, "_validate", lambda *_, scores=scores: next(scores))
        monkeypatch.setattr(
            "hirelc.measure.finetune.settle", lambda network, *_, settled=settled: settled.append(spoil(network))
        )
        trained = Trainer(tiny(), data(), data(160, 1), CLASSIFICATION, config, 0).finetune(student, 32 * 160, name="a")
        assert trained.best == max(last, 70.0) and len(settled) == 1 and next(scores, None) is None
        assert bool((norm_of(student).running_mean == 3.0).all()) is kept


def norm_of(network: nn.Module) -> _BatchNorm:
    return next(m for m in network.modules() if isinstance(m, _BatchNorm))


def spoil(network: nn.Module) -> None:
    norm_of(network).running_mean.fill_(3.0)


def test_settling_is_part_of_the_budget_of_images() -> None:
    config = TrainConfig(batch_size=32, precision="fp32", evaluations=2)
    trained = Trainer(tiny(), data(), data(160, 1), CLASSIFICATION, config, 0).finetune(tiny(), 32 * 160, name="a")
    assert 32 * 150 < trained.images <= 32 * 160
