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

from hirelc.batches import Batches, batch_length, map_inputs
from hirelc.compression.activations import hook
from hirelc.compression.sites import Side
from hirelc.errors import NetworkError
from hirelc.export.runtime import feed, run, session
from hirelc.network.calling import call, logits_of

AGREEMENT = 99.5  # percent of samples with the same first choice
ACCURACY = 0.1  # points
LAYER = 0.1  # root mean squared difference of a layer, relative to its size
LAYER_SAMPLES = 16


@dataclass(frozen=True)
class Probe:
    """Where a kernel's result is, in the graph and in the network.

    :param tensor: its name in the graph
    :param rows: the channels that the graph computes; None for all. `axis` is their dimension, from the end
    """

    kernel: str
    tensor: str
    module: str
    side: Side = "output"
    rows: Tensor | None = None
    axis: int = -1


@dataclass(frozen=True)
class Parity:
    """How far the graph in onnxruntime is from the network read back from the file.

    :param samples: compared on the task; labelled or not
    :param agreement: percent of samples with the same first choice
    :param accuracy_file: of the network, in percent; None without labels
    :param accuracy_onnx: of the graph
    :param layers: kernel -> root mean squared difference relative to the network's value, in order of the network
    """

    samples: int
    agreement: float
    accuracy_file: float | None
    accuracy_onnx: float | None
    layers: dict[str, float]

    @property
    def worst_layer(self) -> float:
        return max(self.layers.values(), default=0.0)


def check_parity(
    model: onnx.ModelProto, network: nn.Module, probes: list[Probe], data: Batches | None, example: Any, samples: int
) -> Parity:
    """Compares graph and network.

    :param network: with its activations quantized as the graph has them
    :param data: labelled samples; without, only the example's layers and first choices are compared
    :raises NetworkError: they differ by more than allowed; the first layer that diverges is named
    """
    inputs = example if data is None else next(iter(data.epoch(0, training=False)))[0]
    few = map_inputs(inputs, lambda tensor: tensor[:LAYER_SAMPLES])
    layers = compare_layers(model, network, probes, few)
    running = session(model.SerializeToString())
    count, same, right_file, right_onnx = 0, 0, 0, 0
    labelled = data is not None
    for batch, targets in data.epoch(0, training=False) if data is not None else [(example, torch.zeros(0))]:
        take = min(samples - count, batch_length(batch))
        batch, targets = map_inputs(batch, lambda tensor, n=take: tensor[:n]), targets[:take]  # type: ignore[misc]
        with torch.no_grad():
            wanted = logits_of(call(network, batch)).argmax(-1)
        found = run(running, batch).argmax(-1)
        count += take
        same += int((wanted == found).reshape(take, -1).all(1).sum())
        labelled = labelled and targets.shape == wanted.shape
        if labelled:
            right_file += int((wanted == targets).reshape(take, -1).all(1).sum())
            right_onnx += int((found == targets).reshape(take, -1).all(1).sum())
        if count >= samples:
            break
    parity = Parity(
        samples=count,
        agreement=100.0 * same / count,
        accuracy_file=100.0 * right_file / count if labelled else None,
        accuracy_onnx=100.0 * right_onnx / count if labelled else None,
        layers=layers,
    )
    _judge(parity)
    return parity


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

        hook(copied, probe.module, probe.side, look)
    with torch.no_grad():
        call(copied, inputs)
    return seen


def _judge(parity: Parity) -> None:
    first = next((name for name, error in parity.layers.items() if error > LAYER), None)
    if first is not None:
        raise NetworkError(
            f"the exported graph diverges from the file at {first}: its result differs by "
            f"{100 * parity.layers[first]:.0f} % of its size (at most {100 * LAYER:.0f} % is allowed)"
        )
    worst = max(parity.layers, key=lambda name: parity.layers[name], default="no layer")
    where = f"the layer that differs most is {worst}, by {100 * parity.worst_layer:.1f} % of its size"
    one = 100.0 / parity.samples  # a single sample is never too many
    if 100.0 - parity.agreement > max(100.0 - AGREEMENT, one) + 1e-9:
        raise NetworkError(
            f"the exported graph agrees with the file on {parity.agreement:.2f} % of {parity.samples} samples, "
            f"{AGREEMENT} % are asked for; {where}"
        )
    if parity.accuracy_file is not None and parity.accuracy_onnx is not None:
        lost = abs(parity.accuracy_file - parity.accuracy_onnx)
        if lost > max(ACCURACY, one) + 1e-9:
            raise NetworkError(
                f"the exported graph has an accuracy of {parity.accuracy_onnx:.2f} %, the file {parity.accuracy_file:.2f} %: "
                f"{ACCURACY} points are allowed; {where}"
            )
