"""Channels filled up with zeros where a runtime's fast integer convolutions want a multiple: nothing changes in the result.

onnxruntime's fast kernels take depthwise convolutions of a multiple of 16 channels, others of 4 in and 8 out; anything
else falls back to a path that takes two to three times as long. A few channels of zeros cost less.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hirelc.export.graph import Graph
from hirelc.export.simplify import attribute

IN, OUT, DEPTHWISE = 4, 8, 16
MOST = 1 / 3  # that may be added


@dataclass
class _Span:
    """Tensors that have their channels in common, from the convolutions that make them to those that read them."""

    channels: int
    makers: list[onnx.NodeProto] = field(default_factory=list)
    middle: list[onnx.NodeProto] = field(default_factory=list)  # depthwise
    readers: list[onnx.NodeProto] = field(default_factory=list)


def fill_channels(graph: Graph) -> None:
    """Widens what can be widened, the graph's input included."""
    done: set[str] = set()
    for node in [node for node in graph.nodes if node.op_type == "Conv"]:
        span = None if node.name in done or _group(node) != 1 else _span(graph, node)
        if span is None:
            continue
        done.update(n.name for n in span.makers)
        multiple = DEPTHWISE if span.middle else OUT
        more = -span.channels % multiple
        if more and more <= MOST * span.channels + 1:
            _widen(graph, span, more)
    for node in [node for node in graph.nodes if node.op_type == "Conv"]:
        _widen_input(graph, node)


def _span(graph: Graph, maker: onnx.NodeProto) -> _Span | None:
    """What a convolution starts: followed through depthwise convolutions to the ones that read it."""
    codes = _weight(graph, maker)
    if codes is None:
        return None
    span = _Span(codes.shape[0], [maker])
    behind = [maker]
    while behind:
        readers = _readers(graph, behind.pop())
        if not readers:
            return None
        for reader in readers:
            codes = _weight(graph, reader)
            if codes is None:
                return None
            if _group(reader) == 1:
                span.readers.append(reader)
            elif _group(reader) == span.channels == codes.shape[0]:
                span.middle.append(reader)
                behind.append(reader)
            else:
                return None
    return span


def _readers(graph: Graph, conv: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The convolutions that read a convolution's quantized result; none when anything else does too."""
    found = []
    for quantize in graph.consumers(conv.output[0]):
        if quantize.op_type != "QuantizeLinear" or len(graph.consumers(conv.output[0])) != 1:
            return []
        for dequantize in graph.consumers(quantize.output[0]):
            readers = graph.consumers(dequantize.output[0])
            if dequantize.op_type != "DequantizeLinear" or any(
                r.op_type != "Conv" or r.input[0] != dequantize.output[0] for r in readers
            ):
                return []
            found += readers
    return found


def _weight(graph: Graph, conv: onnx.NodeProto) -> NDArray[np.int8] | None:
    """The whole numbers of a convolution's weight: symmetric, per channel, used by it alone."""
    source = graph.producer(conv.input[1])
    if source is None or source.op_type != "DequantizeLinear" or source.input[0] not in graph.constants:
        return None
    codes, scale, zero = (numpy_helper.to_array(graph.constants[name]) for name in source.input)
    alone = len(graph.consumers(source.input[0])) == len(graph.consumers(source.output[0])) == 1
    if not alone or codes.dtype != np.int8 or scale.shape != codes.shape[:1] or zero.any() or attribute(source, "axis") != 0:
        return None
    if len(conv.input) > 2 and conv.input[2] and conv.input[2] not in graph.constants:
        return None
    return codes


def _group(conv: onnx.NodeProto) -> int:
    return int(attribute(conv, "group") or 1)


def _widen(graph: Graph, span: _Span, more: int) -> None:
    for conv in (*span.makers, *span.middle):
        source = graph.producer(conv.input[1])
        assert source is not None
        _fill(graph, source.input[0], 0, more)
        source.input[1] = _filled(graph, source.input[1], more, 1.0)
        source.input[2] = _filled(graph, source.input[2], more, 0)
        if len(conv.input) > 2 and conv.input[2]:
            conv.input[2] = _filled(graph, conv.input[2], more, 0)
    for conv in span.middle:
        next(a for a in conv.attribute if a.name == "group").i += more
    for conv in span.readers:
        source = graph.producer(conv.input[1])
        assert source is not None
        _fill(graph, source.input[0], 1, more)


def _fill(graph: Graph, codes: str, axis: int, more: int) -> None:
    """Zeros behind the whole numbers of a weight, which keeps its name."""
    values = numpy_helper.to_array(graph.constants[codes])
    around = [(0, more if dim == axis else 0) for dim in range(values.ndim)]
    graph.constants[codes] = numpy_helper.from_array(np.pad(values, around), codes)


def _filled(graph: Graph, name: str, more: int, value: float) -> str:
    """A longer copy of what may be shared with others."""
    values = numpy_helper.to_array(graph.constants[name])
    return graph.constant(f"{name}.filled", np.append(values, np.full(more, value, values.dtype)))


def _widen_input(graph: Graph, conv: onnx.NodeProto) -> None:
    """Three channels of a picture become four: a channel of zeros behind its quantization."""
    codes = _weight(graph, conv) if _group(conv) == 1 else None
    dequantize = graph.producer(conv.input[0])
    if codes is None or codes.shape[1] != IN - 1 or codes.shape[0] % OUT or codes[0, 0].size == 1 or dequantize is None:
        return
    quantize = graph.producer(dequantize.input[0]) if dequantize.op_type == "DequantizeLinear" else None
    if quantize is None or quantize.op_type != "QuantizeLinear" or len(graph.consumers(dequantize.output[0])) != 1:
        return
    source = graph.producer(conv.input[1])
    assert source is not None
    _fill(graph, source.input[0], 1, 1)
    pads = [0] * (2 * codes.ndim)
    pads[codes.ndim + 1] = 1
    filled, output = graph.name("filled.codes"), graph.name("filled")
    inputs = [dequantize.input[0], graph.constant("filled.pads", np.array(pads)), dequantize.input[2]]
    graph.nodes += [
        helper.make_node("Pad", inputs, [filled], name=filled),
        helper.make_node("DequantizeLinear", [filled, *dequantize.input[1:]], [output], name=output),
    ]
    conv.input[0] = output
