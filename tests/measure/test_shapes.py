"""Sensitivity and proxy for outputs of any shape: sequences, maps, dicts, and no labels at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hirelc.batches import TensorBatches, no_targets
from hirelc.measure import proxy as proxy_module
from hirelc.measure.proxy import LogitProxy
from hirelc.measure.sensitivity import fisher_sensitivity
from hirelc.network.trace import trace
from hirelc.task import DISTILL_VALUES, LANGUAGE_MODEL, SEGMENTATION, Task

SAMPLES = 12


class Sequences(nn.Module):
    """Tokens in by keyword, logits out in a dict."""

    def __init__(self, wide: int = 7) -> None:
        super().__init__()
        self.table = nn.Embedding(wide, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(2))
        self.head = nn.Linear(8, wide)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        x = self.table(input_ids)
        for layer in self.layers:
            x = x + layer(x)
        return {"logits": self.head(x)}


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.layers = nn.ModuleList(nn.Sequential(nn.Conv2d(6, 12, 1), nn.ReLU(), nn.Conv2d(12, 6, 1)) for _ in range(2))
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        x = self.stem(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x), 1


def sequences() -> tuple[nn.Module, Any, Tensor, Task]:
    ids = torch.randint(0, 7, (SAMPLES, 5))
    return Sequences(), {"input_ids": ids}, ids, LANGUAGE_MODEL


def maps() -> tuple[nn.Module, Any, Tensor, Task]:
    return Maps(), torch.randn(SAMPLES, 1, 4, 4), torch.randint(0, 3, (SAMPLES, 4, 4)), SEGMENTATION


@pytest.mark.parametrize("made", [sequences, maps])
def test_a_whole_sequence_or_map_is_one_sample_of_the_fisher(made: Any) -> None:
    torch.manual_seed(0)
    network, x, y, task = made()
    found = fisher_sensitivity(network, trace(network, x), TensorBatches(x, y, 5), task, SAMPLES, seed=0)
    weight = network.layers[0][0].weight  # type: ignore[index, union-attr]
    expected = torch.zeros_like(weight)
    for i in range(SAMPLES):
        one = network(input_ids=x["input_ids"][i : i + 1]) if isinstance(x, dict) else network(x[i : i + 1])
        (gradient,) = torch.autograd.grad(task.loss(task.outputs(one), y[i : i + 1]), weight)
        expected += gradient.square() / SAMPLES
    assert found.samples == SAMPLES
    assert torch.allclose(found.fisher["layers.0.0.weight"], expected, rtol=1e-4, atol=1e-10)
    assert found.fisher["layers.0.0.weight"].max() > 0


def test_without_labels_the_fisher_is_that_of_the_outputs() -> None:
    """For noise of deviation s around a linear output, E[(d loss / d W_ij)^2] = 4 s^2 x_j^2 / outputs^2."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 4, bias=False))
    x = torch.randn(1, 3).expand(1500, 3).contiguous()
    spec = trace(network, x)
    found = fisher_sensitivity(network, spec, TensorBatches(x, no_targets(1500), 500), DISTILL_VALUES, 1500, seed=0)
    with torch.no_grad():
        hidden, spread = network[0](x[:1])[0], network(x[:1]).std()
        expected = (4 * spread**2 / 16) * hidden.square().expand(4, 4)
    assert torch.allclose(found.fisher["1.weight"], expected, rtol=0.15)


@pytest.mark.parametrize("made", [sequences, maps])
def test_huge_outputs_are_compared_in_part_and_in_portions(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, x, y, task = made()
    spec = trace(network, x)
    fisher = fisher_sensitivity(network, spec, TensorBatches(x, y, 5), task, SAMPLES, seed=0).fisher
    importance = {name: fisher[name] + 1e-6 for name in fisher}
    whole = LogitProxy(network, spec, x, importance, fisher, task=task)
    size = whole.logits.numel()
    assert size == task.outputs(network(**x) if isinstance(x, dict) else network(x)).numel()
    monkeypatch.setattr(proxy_module, "COMPARED", size // 4)
    monkeypatch.setattr(proxy_module, "AT_ONCE", size // SAMPLES * 5)
    part = LogitProxy(network, spec, x, importance, fisher, task=task)
    assert size / 6 < part.logits.numel() <= size / 3.5 and part.chunk == 5
    changed = {"head.weight": network.head.weight.detach() * 1.1}  # type: ignore[union-attr, operator]
    assert part.network_distortion(changed) == pytest.approx(whole.network_distortion(changed), rel=0.3)
    assert part.network_distortion({}) == 0


def test_outputs_that_the_network_masks_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Masked(Sequences):
        def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
            return {"logits": super().forward(input_ids)["logits"].masked_fill(torch.arange(7) == 2, -torch.inf)}

    torch.manual_seed(0)
    network, (_, x, y, task) = Masked(), sequences()
    spec = trace(network, x)
    y = y.masked_fill(y == 2, -100)
    fisher = fisher_sensitivity(network, spec, TensorBatches(x, y, 5), task, SAMPLES, seed=0).fisher
    proxy = LogitProxy(network, spec, x, fisher, fisher, task=task)
    assert 0 < proxy.network_distortion({"head.weight": network.head.weight.detach() * 1.1}) < 1
