"""What the exporter's graph has and nobody needs, or has in a form that runtimes do not compute in integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hirelc.export.graph import Graph

FAR = 2**31  # a slice from or to there takes everything


def simplify(graph: Graph) -> None:
    """The passes that hold for any graph."""
    drop_idle_masks(graph)
    drop_nan_guards(graph)
    straighten_transposes(graph)
    fuse_pads(graph)
    drop_empty_norms(graph)


def drop_empty_norms(graph: Graph) -> None:
    """Removes BatchNormalizations that change nothing: what is left of a folded one whose module computes more."""
    for norm in [node for node in graph.nodes if node.op_type == "BatchNormalization"]:
        if attribute(norm, "epsilon") != 0 or any(name not in graph.constants for name in norm.input[1:5]):
            continue
        scale, shift, mean, variance = (numpy_helper.to_array(graph.constants[name]) for name in norm.input[1:5])
        if not shift.any() and not mean.any() and (scale == 1).all() and (variance == 1).all():
            graph.nodes.remove(norm)
            graph.rename(norm.output[0], norm.input[0])


def drop_idle_masks(graph: Graph) -> None:
    """Removes the addition of a mask that masks nothing: `x + where(all true, 0, something)`."""
    for where in [node for node in graph.nodes if node.op_type == "Where"]:
        source = graph.producer(where.input[0])
        condition = source.input[0] if source is not None and source.op_type == "Expand" else where.input[0]
        zero = graph.constants.get(where.input[1])
        if condition not in graph.constants or zero is None or np.any(numpy_helper.to_array(zero) != 0):
            continue
        if not numpy_helper.to_array(graph.constants[condition]).all():
            continue
        for reader in graph.consumers(where.output[0]):
            other = [name for name in reader.input if name != where.output[0]]
            if reader.op_type == "Add" and len(other) == 1:
                graph.nodes.remove(reader)
                graph.rename(reader.output[0], other[0])


def drop_nan_guards(graph: Graph) -> None:
    """Removes `where(isnan(softmax(x)), 0, softmax(x))` where x is a product: a row of minus infinities needs a mask."""
    for softmax in [node for node in graph.nodes if node.op_type == "Softmax"]:
        source = graph.producer(softmax.input[0])
        guards = [node for node in graph.consumers(softmax.output[0]) if node.op_type == "Where"]
        if source is None or source.op_type not in ("MatMul", "Mul", "Div") or len(guards) != 1:
            continue
        asked = graph.producer(guards[0].input[0])
        if asked is None or asked.op_type != "IsNaN" or asked.input[0] != softmax.output[0]:
            continue
        if guards[0].input[2] == softmax.output[0]:
            graph.nodes.remove(guards[0])
            graph.rename(guards[0].output[0], softmax.output[0])


def straighten_transposes(graph: Graph) -> None:
    """The exporter swaps the last two dimensions of keys in three steps (rows joined, swapped, parted again); one will do."""
    for swap in [node for node in graph.nodes if node.op_type == "Transpose" and attribute(node, "perm") == [0, 2, 1]]:
        joined = graph.producer(swap.input[0])
        parted = graph.consumers(swap.output[0])
        if joined is None or joined.op_type != "Reshape" or len(parted) != 1 or parted[0].op_type != "Reshape":
            continue
        source = graph.producer(joined.input[0])
        order = None if source is None or source.op_type != "Transpose" else attribute(source, "perm")
        before, behind = (_joined(graph, node.input[1]) for node in (joined, parted[0]))
        if order is None or before is None or behind is None or len(before) != 3 or len(behind) != 3:
            continue
        rest, rows, columns = behind[0], before[1], before[2]
        if behind[1:] != [columns, rows] or not _all_one_less(graph, before[0]):
            continue
        if _sliced(graph, rest, joined.input[0]) != (None, -2):
            continue
        if (_sliced(graph, rows, joined.input[0]), _sliced(graph, columns, joined.input[0])) != ((-2, -1), (-1, None)):
            continue
        rank = len(order)
        perm = [*range(rank - 2), rank - 1, rank - 2]
        graph.nodes.remove(parted[0])
        result = parted[0].output[0]
        graph.nodes.append(helper.make_node("Transpose", [joined.input[0]], [result], name=f"{result}.swapped", perm=perm))


def _joined(graph: Graph, tensor: str) -> list[str] | None:
    """The parts of a shape that is put together."""
    node = graph.producer(tensor)
    return list(node.input) if node is not None and node.op_type == "Concat" else None


def _all_one_less(graph: Graph, tensor: str) -> bool:
    """Whether a part of a shape is the constant [-1]."""
    return tensor in graph.constants and numpy_helper.to_array(graph.constants[tensor]).tolist() == [-1]


def _sliced(graph: Graph, tensor: str, of: str) -> tuple[int | None, int | None] | None:
    """From where to where a tensor is cut out of another's shape; None stands for the ends."""
    node = graph.producer(tensor)
    shape = None if node is None or node.op_type != "Slice" or len(node.input) > 3 else graph.producer(node.input[0])
    if node is None or shape is None or shape.op_type != "Shape" or shape.input[0] != of:
        return None
    if any(name not in graph.constants for name in node.input[1:]):
        return None
    start, end = (int(numpy_helper.to_array(graph.constants[name]).reshape(-1)[0]) for name in node.input[1:])
    return (None if start < -FAR else start), (None if end > FAR else end)


def fuse_pads(graph: Graph) -> None:
    """Padding with zeros in front of a convolution becomes the convolution's own."""
    for conv in [node for node in graph.nodes if node.op_type == "Conv"]:
        pad = graph.producer(conv.input[0])
        if pad is None or pad.op_type != "Pad" or len(graph.consumers(pad.output[0])) != 1:
            continue
        around = _zero_padding(graph, pad)
        own = attribute(conv, "pads")
        if around is None or attribute(conv, "auto_pad") not in (None, b"NOTSET"):
            continue
        both = [a + b for a, b in zip(around, own or [0] * len(around), strict=True)]
        kept = [a for a in conv.attribute if a.name != "pads"]
        del conv.attribute[:]
        conv.attribute.extend([*kept, helper.make_attribute("pads", both)])
        conv.input[0] = pad.input[0]


def _zero_padding(graph: Graph, pad: onnx.NodeProto) -> list[int] | None:
    """Begin and end of the spatial dimensions, when a Pad adds zeros to nothing else."""
    if attribute(pad, "mode") not in (None, b"constant") or (len(pad.input) > 3 and pad.input[3]):
        return None
    if pad.input[1] not in graph.constants:
        return None
    if len(pad.input) > 2 and pad.input[2]:
        value = graph.constants.get(pad.input[2])
        if value is None or np.any(numpy_helper.to_array(value) != 0):
            return None
    pads = numpy_helper.to_array(graph.constants[pad.input[1]]).astype(int).tolist()
    half = len(pads) // 2
    if any(pads[i] for i in (0, 1, half, half + 1)) or min(pads) < 0:
        return None
    return [*pads[2:half], *pads[half + 2 :]]


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """The value of a node's attribute; None where it has none."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)
