from __future__ import annotations

import pytest
import torch

from hirelc.batches import LoaderBatches, TensorBatches
from hirelc.errors import DataError
from hirelc.measure.evaluate import accuracy, native_precision
from hirelc.task import CLASSIFICATION
from measure.small import data, samples, tiny


def test_accuracy_is_the_share_of_right_answers() -> None:
    network = tiny()
    x, y = samples(50, 3, noise=2.0)
    expected = 100 * float((network(x).argmax(-1) == y).float().mean())
    assert 40 < expected < 100
    for batch_size in (7, 50, 64):  # incomplete last batches count
        assert accuracy(network, TensorBatches(x, y, batch_size), CLASSIFICATION) == pytest.approx(expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_and_no_statistic_moves(training: bool) -> None:
    network = tiny().train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, second = (accuracy(network, data(), CLASSIFICATION) for _ in range(2))
    assert first == second
    assert network.training is training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(RuntimeError):
        accuracy(network, TensorBatches(torch.randn(4, 9), torch.zeros(4)), CLASSIFICATION)
    assert network.training is training


def test_an_empty_split() -> None:
    with pytest.raises(DataError, match="empty"):
        accuracy(tiny(), LoaderBatches([]), CLASSIFICATION)


def test_precision_is_fixed_unless_automatic() -> None:
    assert native_precision("fp32", "cpu") == "fp32"
    assert native_precision("bf16", "cpu") == "bf16"
    assert native_precision("auto", "cpu") in ("fp32", "bf16")


def test_bf16_gives_nearly_the_same() -> None:
    exact = accuracy(tiny(), data(), CLASSIFICATION)
    assert accuracy(tiny(), data(), CLASSIFICATION, precision="bf16") == pytest.approx(exact, abs=3)
