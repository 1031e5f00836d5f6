"""The float graph made integer: weights as whole numbers, marks as QuantizeLinear and DequantizeLinear, integer biases.

A runtime joins an operator with the DequantizeLinear before and the QuantizeLinear behind it and computes in integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hirelc.compression.activations import ActivationSite
from hirelc.export.integers import IntegerWeight
from hirelc.export.tracing import DOMAIN, MARK

BIAS_LIMIT = 2**30  # integer biases stay clear of overflow


class Graph:
    """An ONNX model that is being rewritten."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in model.graph.initializer}
        self._numbers = 0
        self._taken = {name for node in self.nodes for name in (node.name, *node.input, *node.output)} | set(self.constants)
        for node in [node for node in self.nodes if node.op_type == "Constant" and node.attribute[0].name == "value"]:
            self.nodes.remove(node)
            node.attribute[0].t.name = node.output[0]
            self.constants[node.output[0]] = node.attribute[0].t

    def name(self, stem: str) -> str:
        """A name that nothing has."""
        self._numbers += 1
        while f"{stem}_{self._numbers}" in self._taken:
            self._numbers += 1
        return f"{stem}_{self._numbers}"

    def constant(self, stem: str, values: NDArray[np.generic]) -> str:
        """A new initialiser; the name it got."""
        name = self.name(stem)
        self.constants[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if tensor in node.input]

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        return next((node for node in self.nodes if tensor in node.output), None)

    def rename(self, old: str, new: str) -> None:
        """Whoever reads `old` reads `new`; a result of the graph keeps its name."""
        if any(output.name == old for output in self.model.graph.output):
            self.nodes.append(helper.make_node("Identity", [new], [old], name=self.name("result")))
        for node in self.nodes:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new

    def finished(self) -> onnx.ModelProto:
        """The model with what has been changed; what nobody reads is dropped."""
        outputs = {o.name for o in self.model.graph.output}
        while True:
            read = outputs | {name for node in self.nodes for name in node.input}
            left = [node for node in self.nodes if read & set(node.output)]
            if len(left) == len(self.nodes):
                break
            self.nodes = left
        del self.model.graph.node[:]
        del self.model.graph.initializer[:]
        self.model.graph.node.extend(_sorted(self.nodes, {i.name for i in self.model.graph.input} | set(self.constants)))
        self.model.graph.initializer.extend(t for name, t in self.constants.items() if name in read)
        return self.model


def _sorted(nodes: Sequence[onnx.NodeProto], known: set[str]) -> list[onnx.NodeProto]:
    """Every node behind what it reads; else in the order given."""
    ready, waiting, have = [], list(nodes), set(known) | {""}
    while waiting:
        later = []
        for node in waiting:
            if all(name in have for name in node.input):
                ready.append(node)
                have.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            return [*ready, *later]  # subgraphs read from outside; the checker has the last word
        waiting = later
    return ready


def put_weights(graph: Graph, weights: Mapping[str, IntegerWeight]) -> dict[str, list[str]]:
    """Replaces float initialisers by whole numbers and a DequantizeLinear.

    :param weights: by name of the initialiser
    :returns: per name, the names of the integer initialisers that hold it
    """
    held: dict[str, list[str]] = {name: [] for name in weights}
    for name, weight in weights.items():
        made: dict[tuple[int, ...] | None, str] = {}
        for node in graph.consumers(name):
            order = _transposed(node, name, weight)
            if order not in made:
                made[order] = _dequantized(graph, name, weight, order, held[name])
            if order is None:
                _swap(node, name, made[order])
            else:
                graph.nodes.remove(node)
                graph.rename(node.output[0], made[order])
    return held


def _transposed(node: onnx.NodeProto, name: str, weight: IntegerWeight) -> tuple[int, ...] | None:
    if node.op_type != "Transpose" or node.input[0] != name:
        return None
    order = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), ())
    return order or tuple(reversed(range(weight.values.ndim)))


def _dequantized(graph: Graph, name: str, weight: IntegerWeight, order: tuple[int, ...] | None, held: list[str]) -> str:
    values, axis = weight.values, weight.axis
    if order is not None:
        values, axis = values.transpose(order), order.index(axis)
    held.append(graph.constant(f"{name}.codes", values))
    per_channel = len(weight.scale) > 1
    scale = graph.constant(f"{name}.scale", weight.scale if per_channel else weight.scale.reshape(()))
    zero = np.full(weight.scale.shape if per_channel else (), weight.zero_point, dtype=values.dtype)
    inputs = [held[-1], scale, graph.constant(f"{name}.zero_point", zero)]
    output = graph.name(f"{name}.dequantized")
    attributes: dict[str, Any] = {"axis": axis} if per_channel else {}
    graph.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], name=output, **attributes))
    return output


def _swap(node: onnx.NodeProto, old: str, new: str) -> None:
    for i, name in enumerate(node.input):
        if name == old:
            node.input[i] = new


def put_sites(graph: Graph, sites: Sequence[ActivationSite]) -> dict[int, str]:
    """Replaces the marks by QuantizeLinear and DequantizeLinear.

    :returns: per site, the tensor behind it
    """
    behind: dict[int, str] = {}
    rounded: dict[tuple[str, float, int], str] = {}
    parameters: dict[tuple[float, int], tuple[str, str]] = {}
    result_of: dict[str, tuple[float, int]] = {}
    for node in [node for node in graph.nodes if node.domain == DOMAIN and node.op_type == MARK]:
        index = node.attribute[0].i
        at = (sites[index].scale, sites[index].zero_point)
        source = node.input[0]
        graph.nodes.remove(node)
        if result_of.get(source) == at:  # rounded like this already
            rounded[(source, *at)] = source
        if (source, *at) not in rounded:
            if at not in parameters:
                parameters[at] = (
                    graph.constant("activation.scale", np.array(at[0], np.float32)),
                    graph.constant("activation.zero_point", np.array(at[1], np.uint8)),
                )
            codes, output = graph.name("activation.codes"), graph.name("activation")
            graph.nodes += [
                helper.make_node("QuantizeLinear", [source, *parameters[at]], [codes], name=codes),
                helper.make_node("DequantizeLinear", [codes, *parameters[at]], [output], name=output),
            ]
            rounded[(source, *at)] = output
            result_of[output] = at
        behind[index] = rounded[(source, *at)]
        graph.rename(node.output[0], behind[index])
    return behind


def drop_idle_clips(graph: Graph) -> None:
    """Removes a ReLU (or ReLU6) next to a quantization whose range holds nothing that it would clip."""
    for node in [node for node in graph.nodes if node.op_type in ("Relu", "Clip")]:
        before, behind = graph.producer(node.input[0]), graph.consumers(node.output[0])
        ends = _ends(graph, node)
        idle_behind = before is not None and before.op_type == "DequantizeLinear" and _within(graph, before, *ends)
        idle_before = bool(behind) and all(n.op_type == "QuantizeLinear" and _within(graph, n, *ends) for n in behind)
        if idle_behind or idle_before:
            graph.nodes.remove(node)
            graph.rename(node.output[0], node.input[0])


def _ends(graph: Graph, node: onnx.NodeProto) -> tuple[float, float]:
    """What a ReLU or Clip clips at; not a number where the graph computes it."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    ends = [-np.inf, np.inf]
    for i, name in enumerate(node.input[1:]):
        if name:
            ends[i] = float(numpy_helper.to_array(graph.constants[name])) if name in graph.constants else np.nan
    return ends[0], ends[1]


def _within(graph: Graph, node: onnx.NodeProto, low: float, high: float) -> bool:
    """Whether clipping changes no code of a quantization."""
    scale, zero = (numpy_helper.to_array(graph.constants[name]) for name in node.input[1:3])
    if scale.ndim or zero.dtype != np.uint8:
        return False
    lowest, highest = np.round(low / scale) + float(zero), np.round(high / scale) + float(zero)
    if node.op_type == "DequantizeLinear":  # what comes out is clipped itself
        return bool(-float(zero) * float(scale) >= low and (255.0 - float(zero)) * float(scale) <= high)
    return bool(lowest <= 0 and highest >= 255)


SAME_VALUES = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Slice", "Gather", "Identity", "Shape")


def sink_dequantization(graph: Graph) -> None:
    """Moves what only moves or picks values in front of DequantizeLinear: bytes are moved, and what follows is integer."""
    moved = True
    while moved:
        moved = False
        for node in [node for node in graph.nodes if node.op_type in SAME_VALUES and len(node.output) == 1]:
            before = graph.producer(node.input[0])
            if before is None or before.op_type != "DequantizeLinear" or before.attribute or before.input[0] in graph.constants:
                continue
            codes = graph.name("moved.codes")
            if node.op_type == "Shape":
                node.input[0] = before.input[0]
                continue
            graph.nodes.remove(node)
            changed = onnx.NodeProto()
            changed.CopyFrom(node)
            changed.input[0], changed.output[0], changed.name = before.input[0], codes, codes
            inputs = [codes, *before.input[1:]]
            graph.nodes += [changed, helper.make_node("DequantizeLinear", inputs, [node.output[0]], name=node.output[0])]
            moved = True


def join_rows(graph: Graph) -> None:
    """Scattered rows in bytes: the concatenation of computed channels and constants, quantized behind, works on codes."""
    for node in [node for node in graph.nodes if node.op_type == "QuantizeLinear"]:
        gather = graph.producer(node.input[0])
        concat = None if gather is None or gather.op_type != "Gather" else graph.producer(gather.input[0])
        if gather is None or concat is None or concat.op_type != "Concat" or len(concat.input) != 2:
            continue
        found, filled = (graph.producer(name) for name in concat.input)
        if found is None or filled is None or found.op_type != "DequantizeLinear" or filled.op_type != "Expand":
            continue
        if list(found.input[1:]) != list(node.input[1:]) or filled.input[0] not in graph.constants:
            continue
        scale, zero = (numpy_helper.to_array(graph.constants[name]) for name in node.input[1:3])
        values = numpy_helper.to_array(graph.constants[filled.input[0]])
        codes = np.clip(np.round(values / scale) + float(zero), 0, 255).astype(np.uint8)
        constant, wide, both = (graph.name(f"rows.{what}") for what in ("constant", "constants", "all"))
        graph.constants[constant] = numpy_helper.from_array(codes, constant)
        axes = {"axis": concat.attribute[0].i}, {"axis": gather.attribute[0].i}
        graph.nodes.remove(node)
        graph.nodes += [
            helper.make_node("Expand", [constant, filled.input[1]], [wide], name=wide),
            helper.make_node("Concat", [found.input[0], wide], [both], both, None, None, None, **axes[0]),
            helper.make_node("Gather", [both, gather.input[1]], list(node.output), node.name, None, None, None, **axes[1]),
        ]


def put_biases(graph: Graph) -> None:
    """Integer biases, in units of activation scale times weight scale, where an operator is integer otherwise.

    A MatMul keeps the addition of its bias in float: with weights of few bits those units are coarse.
    """
    for node in list(graph.nodes):
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or node.input[2] not in graph.constants:
            continue
        x, w = graph.producer(node.input[0]), graph.producer(node.input[1])
        if x is None or w is None or x.op_type != "DequantizeLinear" or w.op_type != "DequantizeLinear":
            continue
        bias = numpy_helper.to_array(graph.constants[node.input[2]])
        widen_faint_channels(graph, w, float(numpy_helper.to_array(graph.constants[x.input[1]])), bias)
        scales = [numpy_helper.to_array(graph.constants[n.input[1]]).astype(np.float32) for n in (x, w)]
        unit = (scales[0] * scales[1]).astype(np.float32)
        if bias.ndim != 1 or bias.dtype != np.float32 or unit.size not in (1, bias.size):
            continue
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            whole = np.round(bias.astype(np.float64) / unit.ravel())
        if not np.isfinite(whole).all() or np.abs(whole).max(initial=0) > BIAS_LIMIT or (unit <= 0).any():
            continue  # the bias stays float
        stem = f"{node.input[2]}.integer"
        output = graph.name(stem)
        inputs = [graph.constant(stem, whole.astype(np.int32)), graph.constant(f"{stem}.scale", unit)]
        attributes: dict[str, Any] = {"axis": 0} if unit.size > 1 else {}
        graph.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], name=output, **attributes))
        node.input[2] = output


def widen_faint_channels(graph: Graph, weight: onnx.NodeProto, entering: float, bias: NDArray[np.float32]) -> None:
    """Coarser scales for channels whose bias is no 32-bit number in their units; runtimes overflow there without a word.

    What these channels' weights lose is beyond the bias's last bits.

    :param weight: the DequantizeLinear of the weight
    :param entering: scale of the activations
    """
    scale = numpy_helper.to_array(graph.constants[weight.input[1]]).astype(np.float64)
    shared = len(graph.consumers(weight.output[0])) > 1 or weight.input[0] not in graph.constants
    if shared or scale.ndim != 1 or scale.size != bias.size or entering <= 0:
        return
    least = np.abs(bias.astype(np.float64)) / (0.9 * BIAS_LIMIT * entering)
    if not (scale < least).any():
        return
    wider = np.maximum(scale, least)
    codes = numpy_helper.to_array(graph.constants[weight.input[0]])
    axis = next((a.i for a in weight.attribute if a.name == "axis"), 1)
    shape = [1] * codes.ndim
    shape[axis] = -1
    zero = 0.0
    if len(weight.input) > 2:
        zero = numpy_helper.to_array(graph.constants[weight.input[2]]).astype(np.float64).reshape(-1)[0]
    narrowed = np.round((codes.astype(np.float64) - zero) * (scale / wider).reshape(shape) + zero).astype(codes.dtype)
    graph.constants[weight.input[0]] = numpy_helper.from_array(narrowed, weight.input[0])
    graph.constants[weight.input[1]] = numpy_helper.from_array(wider.astype(np.float32), weight.input[1])


def put_four_bits(graph: Graph, names: Iterable[str]) -> None:
    """Stores integer initialisers as INT4; a Cast, which runtimes do once when they load, widens them."""
    for name in names:
        if name not in graph.constants:
            continue  # an equal tensor stands for it
        values = numpy_helper.to_array(graph.constants.pop(name))
        narrow = f"{name}.int4"
        data = _nibbles(values)
        graph.constants[narrow] = helper.make_tensor(narrow, TensorProto.INT4, values.shape, data, raw=True)
        graph.nodes.append(helper.make_node("Cast", [narrow], [name], name=f"{name}.widened", to=TensorProto.INT8))


def _nibbles(values: NDArray[np.generic]) -> bytes:
    """Two to a byte, the first in the low half."""
    flat = values.ravel().astype(np.int8).view(np.uint8) & 15
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    return bytes((flat[0::2] | (flat[1::2] << 4)).tobytes())


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Folds constants (shapes, float arithmetic on constants) and drops what is not needed. Integer weights stay."""
    found: onnx.ModelProto = onnxscript.optimizer.optimize(model)
    kept = [o for o in found.opset_import if o.domain == "" or any(n.domain == o.domain for n in found.graph.node)]
    del found.opset_import[:]
    found.opset_import.extend(kept)
    return found
