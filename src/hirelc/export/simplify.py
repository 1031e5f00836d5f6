"""What the exporter's graph has and nobody needs, or has in a form that runtimes do not compute in integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hirelc.export.graph import Graph


def simplify(graph: Graph) -> None:
    """The passes that hold for any graph."""
    drop_idle_masks(graph)
    drop_nan_guards(graph)
    fuse_pads(graph)


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


def fuse_pads(graph: Graph) -> None:
    """Padding with zeros in front of a convolution becomes the convolution's own."""
    for conv in [node for node in graph.nodes if node.op_type == "Conv"]:
        pad = graph.producer(conv.input[0])
        if pad is None or pad.op_type != "Pad" or len(graph.consumers(pad.output[0])) != 1:
            continue
        around = _zero_padding(graph, pad)
        own = _attribute(conv, "pads")
        if around is None or _attribute(conv, "auto_pad") not in (None, b"NOTSET"):
            continue
        both = [a + b for a, b in zip(around, own or [0] * len(around), strict=True)]
        kept = [a for a in conv.attribute if a.name != "pads"]
        del conv.attribute[:]
        conv.attribute.extend([*kept, helper.make_attribute("pads", both)])
        conv.input[0] = pad.input[0]


def _zero_padding(graph: Graph, pad: onnx.NodeProto) -> list[int] | None:
    """Begin and end of the spatial dimensions, when a Pad adds zeros to nothing else."""
    if _attribute(pad, "mode") not in (None, b"constant") or (len(pad.input) > 3 and pad.input[3]):
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


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)
