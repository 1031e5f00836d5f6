"""Whether the exported graph computes what the network in the file computes: layer by layer, and on the task."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from hirelc.batches import Batches, batch_length, map_inputs, no_targets
from hirelc.compression.activations import attached, hook
from hirelc.compression.sites import Side
from hirelc.errors import DataError, NetworkError
from hirelc.export.agreement import Agreement, agreement_of
from hirelc.export.runtime import feed, run, session
from hirelc.network.calling import call
from hirelc.task import CLASSIFICATION, Task

AGREEMENT = 99.5  # percent: of answers with the same first choice, or of the values' variance
ACCURACY = 0.1  # points of the task's metric
LAYER = 0.1  # root mean squared difference of a layer, relative to its size
LAYER_SAMPLES = 16
NOT_AS_IN_FILE = (
    "; its activations are not rounded as in the file: compress with --activations int8, so that the ranges are in the "
    "file, or export with --activations float"
)
ROUNDING = (
    "; runtimes round biases to whole numbers, which moves choices that hang by a hair: train the network for longer, or "
    "export with --activations float"
)


@dataclass(frozen=True)
class Probe:
    """Where a kernel's result is, in the graph and in the network.

    :param tensor: its name in the graph
    :param rows: the channels that the graph computes; None for all. `axis` is their dimension, from the end
    :param before: its own quantization, where the graph does not hold the tensor behind it
    """

    kernel: str
    tensor: str
    module: str
    side: Side = "output"
    rows: Tensor | None = None
    axis: int = -1
    before: bool = False


@dataclass(frozen=True)
class Parity:
    """How far the graph in onnxruntime is from the network read back from the file.

    :param samples: compared on the task; labelled or not
    :param agreement: percent of what `compared` says
    :param accuracy_file: of the network, in points of the task's metric; None without labels
    :param accuracy_onnx: of the graph
    :param layers: kernel -> root mean squared difference relative to the network's value, in order of the network
    :param compared: "first choices" where the task chooses (for each position of a map or sequence), else "values"
    :param metric: name of the task's metric
    :param allowance: percent of agreement that one answer makes up
    """

    samples: int
    agreement: float
    accuracy_file: float | None
    accuracy_onnx: float | None
    layers: dict[str, float]
    compared: str = "first choices"
    metric: str = CLASSIFICATION.name
    allowance: float = 0.0

    @property
    def worst_layer(self) -> float:
        return max(self.layers.values(), default=0.0)


def check_parity(
    model: onnx.ModelProto,
    network: nn.Module,
    probes: list[Probe],
    data: Batches | None,
    example: Any,
    samples: int,
    task: Task = CLASSIFICATION,
    reference: nn.Module | None = None,
) -> Parity:
    """Compares graph and network: layer by layer, then as the task judges them.

    :param network: with its activations quantized as the graph has them
    :param reference: whose answers the graph's are compared with: the network as the file has it; `network` by default
    :param data: labelled samples; without, only the example's layers and answers are compared
    :param task: says whether answers are choices or values, and how they are scored
    :raises NetworkError: they differ by more than allowed; the first layer that diverges is named
    :raises DataError: the task's metric fails on the data
    """
    inputs = example if data is None else next(iter(data.epoch(0, training=False)))[0]
    few = map_inputs(inputs, lambda tensor: tensor[:LAYER_SAMPLES])
    layers = compare_layers(model, network, probes, few)
    if task.settle is not None:
        with torch.no_grad():
            task = task.settle(call(network, few))
    parity = _compare_answers(session(model.SerializeToString()), reference or network, data, example, samples, task, layers)
    _judge(parity, NOT_AS_IN_FILE if reference is not None else ROUNDING if attached(network) else "")
    return parity


def _compare_answers(
    running: Any, network: nn.Module, data: Batches | None, example: Any, samples: int, task: Task, layers: dict[str, float]
) -> Parity:
    agreement: Agreement | None = None
    scored = data is not None and task.label is None
    file, graph = task.meter(), task.meter()
    count = 0
    for batch, targets in data.epoch(0, training=False) if data is not None else [(example, None)]:
        take = min(samples - count, batch_length(batch))
        batch = map_inputs(batch, lambda tensor, n=take: tensor[:n])  # type: ignore[misc]
        targets = no_targets(take) if targets is None else targets[:take]
        with torch.no_grad():
            wanted = task.outputs(call(network, batch))
        found = run(running, batch).float()
        agreement = agreement or agreement_of(task, wanted, targets)
        agreement.add(found, wanted, targets)
        if scored:
            _score(task, ((file, wanted), (graph, found)), targets)
        count += take
        if count >= samples:
            break
    assert agreement is not None
    return Parity(
        samples=count,
        agreement=agreement.percent(),
        accuracy_file=float(file.points()) if scored else None,
        accuracy_onnx=float(graph.points()) if scored else None,
        layers=layers,
        compared=agreement.what,
        metric=task.name,
        allowance=agreement.allowance(),
    )


def _score(task: Task, answers: tuple[tuple[Any, Tensor], ...], targets: Tensor) -> None:
    """:raises DataError: outputs and targets do not fit the task's metric"""
    for meter, outputs in answers:
        try:
            meter.add(outputs, targets)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise DataError(
                f"the {task.name} fails on outputs of shape {tuple(outputs.shape)} and targets of shape "
                f"{tuple(targets.shape)}: is --task right? ({str(error).splitlines()[0]})"
            ) from error


def compare_layers(model: onnx.ModelProto, network: nn.Module, probes: list[Probe], inputs: Any) -> dict[str, float]:
    """Per kernel, the relative difference of its results; kernels whose results cannot be matched are left out."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    made = {name for node in opened.graph.node for name in node.output}
    probes = [probe for probe in probes if probe.tensor in made]
    known = {o.name for o in opened.graph.output}
    for tensor in dict.fromkeys(probe.tensor for probe in probes):
        if tensor not in known:
            opened.graph.output.append(helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    running = session(opened.SerializeToString())
    names = list(dict.fromkeys(probe.tensor for probe in probes))
    found = dict(zip(names, running.run(names, feed(running, inputs)), strict=True)) if names else {}
    wanted = _results(network, probes, inputs)
    layers = {}
    for probe in probes:
        values = wanted.get(probe.kernel, [])
        if len(values) != 1:
            continue
        value, other = values[0], torch.from_numpy(found[probe.tensor])
        if probe.rows is not None:
            value = value.index_select(value.ndim + probe.axis, probe.rows)
        if other.dim() == value.dim() > 1 and other.shape[1] > value.shape[1]:
            other = other[:, : value.shape[1]]  # channels that were filled up
        if value.numel() == other.numel():
            layers[probe.kernel] = float((value.reshape(-1) - other.reshape(-1)).norm() / value.norm().clamp_min(1e-12))
    return layers


def _results(network: nn.Module, probes: list[Probe], inputs: Any) -> Mapping[str, list[Tensor]]:
    copied = copy.deepcopy(network)
    seen: dict[str, list[Tensor]] = {}
    for probe in probes:

        def look(values: Tensor, kernel: str = probe.kernel) -> Tensor:
            seen.setdefault(kernel, []).append(values.detach().float().clone())
            return values

        hook(copied, probe.module, probe.side, look, first=probe.before)
    with torch.no_grad():
        call(copied, inputs)
    return seen


def _judge(parity: Parity, advice: str) -> None:
    first = next((name for name, error in parity.layers.items() if error > LAYER), None)
    if first is not None:
        raise NetworkError(
            f"the exported graph diverges from the file at {first}: its result differs by "
            f"{100 * parity.layers[first]:.0f} % of its size (at most {100 * LAYER:.0f} % is allowed)"
        )
    worst = max(parity.layers, key=lambda name: parity.layers[name], default="no layer")
    where = f"the layer that differs most is {worst}, by {100 * parity.worst_layer:.1f} % of its size{advice}"
    if not 100.0 - parity.agreement <= max(100.0 - AGREEMENT, parity.allowance) + 1e-9:  # NaN fails too
        raise NetworkError(
            f"the exported graph agrees with the file on {parity.agreement:.2f} % of the {parity.compared} of "
            f"{parity.samples} samples, {AGREEMENT} % are asked for; {where}"
        )
    if parity.accuracy_file is not None and parity.accuracy_onnx is not None:
        lost = abs(parity.accuracy_file - parity.accuracy_onnx)
        if not lost <= max(ACCURACY, parity.allowance) + 1e-9:
            raise NetworkError(
                f"the exported graph has {parity.accuracy_onnx:.2f} points of {parity.metric}, the file "
                f"{parity.accuracy_file:.2f}: they may differ by {ACCURACY}; {where}"
            )
