"""What a graph and a file are compared by, for each kind of task."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from small import compressed
from torch import Tensor, nn

from hirelc.batches import TensorBatches, no_targets
from hirelc.errors import DataError, NetworkError
from hirelc.export.agreement import SameChoice, SameValues, agreement_of
from hirelc.export.onnx import Settings, export_network
from hirelc.export.parity import check_parity
from hirelc.export.runtime import run, session
from hirelc.network.calling import call, logits_of
from hirelc.policy import Choice
from hirelc.task import (
    DISTILL,
    DISTILL_MAPS,
    DISTILL_VALUES,
    LANGUAGE_MODEL,
    REGRESSION,
    SEGMENTATION,
    SEGMENTATION_IOU,
    Task,
    named_task,
)
from small_tasks import Pairs, Signals, maps, things, waves

EIGHT = Choice(8)


def export(network: nn.Module, inputs: Any, unpack: Any = logits_of) -> tuple[onnx.ModelProto, nn.Module]:
    torch.manual_seed(0)
    slim, kernels, left = compressed(network.eval(), inputs, lambda kernel: EIGHT)
    return export_network(slim, kernels, inputs, Settings(), left, unpack)[0], slim


def turned(model: onnx.ModelProto, offset: Tensor) -> onnx.ModelProto:
    """The same graph with something added to its result."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    for node in wrong.graph.node:
        for i, name in enumerate(node.output):
            if name == "logits":
                node.output[i] = "before"
    wrong.graph.initializer.append(onnx.numpy_helper.from_array(offset.numpy(), "offset"))
    wrong.graph.node.append(onnx.helper.make_node("Add", ["before", "offset"], ["logits"]))
    return wrong


@pytest.fixture(scope="module")
def segmenter() -> tuple[onnx.ModelProto, nn.Module, TensorBatches]:
    torch.manual_seed(0)
    data = TensorBatches(*maps(40), batch_size=16)
    network = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    )
    return *export(network, data.x), data


@pytest.mark.parametrize("task", [SEGMENTATION, SEGMENTATION_IOU, DISTILL_MAPS], ids=lambda task: task.name)
def test_maps_are_compared_pixel_by_pixel(segmenter: Any, task: Task) -> None:
    model, network, data = segmenter
    found = check_parity(model, network, [], data, data.x[:2], 30, task)
    assert found.samples == 30 and found.compared == "first choices, position by position"
    assert found.agreement >= 99.5 and found.allowance == pytest.approx(100 / (30 * 64))
    assert (found.accuracy_file is None) == (task is DISTILL_MAPS) and found.metric == task.name
    if found.accuracy_file is not None:
        meter = task.meter()
        with torch.no_grad():
            meter.add(network(data.x[:30]), data.y[:30])
        assert found.accuracy_file == pytest.approx(meter.points())


def test_a_map_that_differs_in_a_few_pixels_fails(segmenter: Any) -> None:
    model, network, data = segmenter
    offset = torch.zeros(1, 3, 8, 8)
    offset[:, 0, 0, :2] = 99  # two of 64 pixels: an argmax over the last axis would not see it as classes
    offset[:, 1, 1, :2] = 99
    with pytest.raises(NetworkError, match=r"agrees with the file on 9\d\.\d\d % of the first choices, position by position"):
        check_parity(turned(model, offset), network, [], data, data.x[:2], 30, SEGMENTATION)
    with pytest.raises(DataError, match=r"pixel accuracy fails on outputs of shape .* is --task right"):
        check_parity(model, network, [], TensorBatches(data.x, data.y[:, 0, 0]), data.x[:2], 30, SEGMENTATION)


def test_regression_is_compared_by_the_variance_explained() -> None:
    data = TensorBatches(*waves(60), batch_size=16)
    model, network = export(Signals(), data.x)
    found = check_parity(model, network, [], data, data.x[:2], 100, REGRESSION)
    assert found.samples == 60 and found.agreement > 99.5 and found.compared.startswith("values")
    assert found.accuracy_file is not None and found.accuracy_onnx == pytest.approx(found.accuracy_file, abs=0.1)
    with torch.no_grad():
        spread = network(data.x).std()
    # first choices of one value never differ; its values do
    with pytest.raises(NetworkError, match=r"of the values \(variance explained\) of 60 samples, 99.5 %"):
        check_parity(turned(model, 0.2 * spread.reshape(1)), network, [], data, data.x[:2], 100, REGRESSION)
    check_parity(turned(model, 0.001 * spread.reshape(1)), network, [], data, data.x[:2], 100, DISTILL_VALUES)
    assert check_parity(model, network, [], None, data.x[:2], 100, REGRESSION).accuracy_file is None


class Words(nn.Module):
    """A language model that sees one word back."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(25, 16)
        self.layers = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 25))

    def forward(self, input_ids: Tensor) -> Tensor:
        found = self.words(input_ids)
        return self.layers(torch.cat([found, nn.functional.pad(found, (0, 0, 1, 0))[:, :-1]], -1))


def test_tokens_are_compared_position_by_position() -> None:
    tokens = torch.randint(5, 25, (20, 8), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": tokens}
    model, network = export(Words(), inputs)
    targets = tokens.clone()
    targets[:, 6:] = -100  # padding is not asked for
    found = check_parity(model, network, [], TensorBatches(inputs, targets), inputs, 20, LANGUAGE_MODEL)
    assert found.allowance == pytest.approx(100 / (20 * 6)) and found.accuracy_file is not None
    offset = torch.zeros(1, 8, 25)
    offset[:, 6:, 3] = 99
    wrong = turned(model, offset)
    check_parity(wrong, network, [], TensorBatches(inputs, targets), inputs, 20, LANGUAGE_MODEL)
    with pytest.raises(NetworkError, match="position by position of 20 samples"):
        check_parity(wrong, network, [], TensorBatches(inputs, tokens), inputs, 20, LANGUAGE_MODEL)


def joined(outputs: dict[str, Tensor]) -> Tensor:
    return torch.cat([outputs["place"], outputs["energy"]], -1)


def test_a_task_of_one_s_own_says_which_tensor_it_is_about() -> None:
    task = Task(nn.functional.mse_loss, lambda a, b: -(a - b).square().mean(-1), "closeness", unpack=joined)
    inputs, targets = things(60)
    model, network = export(Pairs(), inputs, joined)
    wanted = joined(call(network, inputs))
    assert run(session(model.SerializeToString()), inputs).shape == wanted.shape == (60, 3)
    found = check_parity(model, network, [], TensorBatches(inputs, targets), inputs, 60, task)
    assert found.compared.startswith("values") and found.agreement > 99.5 and found.metric == "closeness"


def test_distillation_compares_what_the_network_gives() -> None:
    data = TensorBatches(waves(40)[0], no_targets(40))
    model, network = export(nn.Sequential(nn.Conv1d(1, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(224, 4)), data.x)
    found = check_parity(model, network, [], data, data.x[:2], 40, DISTILL)  # no labels; what is not called logits are values
    assert found.accuracy_file is None and found.compared.startswith("values") and found.agreement > 99.5
    found = check_parity(model, network, [], data, data.x[:2], 40, named_task("distill-classes"))
    assert found.accuracy_file is None and found.compared == "first choices"


def test_what_is_counted() -> None:
    same = SameChoice(1)
    wanted = torch.zeros(2, 3, 4)
    wanted[:, 1] = 1
    found = wanted.clone()
    found[0, 2, :2] = 2
    same.add(found, wanted, torch.tensor([[-100, 0, 0, 0], [0, 0, 0, 0]]))
    assert same.percent() == pytest.approx(100 * 6 / 7)
    values = SameValues()
    values.add(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [2.0]]), no_targets(2))
    assert values.percent() == pytest.approx(100 * (1 - 1 / 0.5))
    constant = SameValues()  # nothing varies: the error counts against the size
    constant.add(torch.full((3, 1), 2.0), torch.full((3, 1), 1.0), no_targets(3))
    assert constant.percent() == pytest.approx(0.0)


def test_a_task_of_one_s_own_chooses_when_its_targets_are_classes() -> None:
    task = Task(nn.functional.cross_entropy, lambda a, b: (a.argmax(-1) == b).float())
    outputs = torch.randn(4, 3)
    assert isinstance(agreement_of(task, outputs, torch.tensor([0, 1, 2, 0])), SameChoice)
    assert isinstance(agreement_of(task, outputs, torch.randn(4, 3)), SameValues)
    assert isinstance(agreement_of(task, outputs, no_targets(4)), SameValues)
