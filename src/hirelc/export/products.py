"""Products of activations in integers: queries times keys, and attention times values.

Runtimes multiply unsigned by signed bytes several times faster than any other pair, so the second factor of a product
is quantized in signed bytes: the same levels, their codes 128 lower.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hirelc.export.graph import SAME_VALUES, Graph

SIGN = 128  # between the code of a level in unsigned and in signed bytes
TOP = 255.0  # code of the largest share in a row of attention


def integer_products(graph: Graph) -> None:
    """Products of two activations become integer where both sides are quantized, or one is a Softmax."""
    absorb_factors(graph)
    signed: dict[str, str] = {}
    for node in [node for node in graph.nodes if node.op_type == "MatMul"]:
        second = _dequantization(graph, node.input[1])
        if second is None:
            continue
        first = graph.producer(node.input[0])
        if first is None or (first.op_type != "Softmax" and _dequantization(graph, node.input[0]) is None):
            continue
        codes = _signed(graph, second.input[0], signed)
        if codes is None:
            continue
        zero = graph.constant("activation.zero_point", _signed_zero(graph, second.input[2]))
        output = graph.name("activation.signed")
        graph.nodes.append(helper.make_node("DequantizeLinear", [codes, second.input[1], zero], [output], name=output))
        node.input[1] = output
        if first.op_type == "Softmax":
            _quantize_shares(graph, node)


def absorb_factors(graph: Graph) -> None:
    """A quantized activation times a constant number is the same codes with another scale."""
    for node in [node for node in graph.nodes if node.op_type in ("Mul", "Div")]:
        before = _dequantization(graph, node.input[0])
        factor = graph.constants.get(node.input[1])
        if before is None or factor is None or numpy_helper.to_array(factor).size != 1:
            continue
        number = float(numpy_helper.to_array(factor).reshape(()))
        scale = float(numpy_helper.to_array(graph.constants[before.input[1]]))
        found = scale * number if node.op_type == "Mul" else scale / number
        if not (number > 0 and np.isfinite(found) and np.float32(found) > 0):
            continue
        inputs = [before.input[0], graph.constant("activation.scale", np.array(found, np.float32)), before.input[2]]
        graph.nodes.remove(node)
        graph.nodes.append(helper.make_node("DequantizeLinear", inputs, list(node.output), name=node.output[0]))


def _dequantization(graph: Graph, tensor: str) -> onnx.NodeProto | None:
    """What makes a tensor from bytes of an activation, with one scale for all of it."""
    node = graph.producer(tensor)
    if node is None or node.op_type != "DequantizeLinear" or len(node.input) < 3 or node.input[0] in graph.constants:
        return None
    zero = graph.constants.get(node.input[2])
    return node if zero is not None and not zero.dims and zero.data_type == onnx.TensorProto.UINT8 else None


def _signed(graph: Graph, codes: str, known: dict[str, str]) -> str | None:
    """The same codes as signed bytes: quantized anew from the float values, then moved in the same way."""
    if codes in known:
        return known[codes]
    node = graph.producer(codes)
    if node is None or (node.op_type != "QuantizeLinear" and node.op_type not in (*SAME_VALUES, "Split")):
        return None
    source = node.input[0] if node.op_type == "QuantizeLinear" else _signed(graph, node.input[0], known)
    if source is None or node.op_type in ("MaxPool", "Shape"):
        return None
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    changed.name = graph.name("signed")
    changed.input[0] = source
    for i, name in enumerate(node.output):
        changed.output[i] = known[name] = graph.name("signed.codes")
    if node.op_type == "QuantizeLinear":
        changed.input[2] = graph.constant("activation.zero_point", _signed_zero(graph, node.input[2]))
    graph.nodes.append(changed)
    return known[codes]


def _signed_zero(graph: Graph, zero_point: str) -> np.ndarray:
    return np.array(int(numpy_helper.to_array(graph.constants[zero_point])) - SIGN, np.int8)


def _quantize_shares(graph: Graph, product: onnx.NodeProto) -> None:
    """Attention in bytes, each row in units of its largest share, which the product is multiplied with afterwards.

    Units of a whole tensor would round a row that looks everywhere to zero.
    """
    shares, result = product.input[0], product.output[0]
    axis = graph.constant("attention.axis", np.array([-1]))
    scale = graph.constant("attention.scale", np.array(1.0 / TOP, np.float32))
    zero = graph.constant("attention.zero_point", np.array(0, np.uint8))
    largest, relative, codes, rounded, plain = (
        graph.name(f"attention.{what}") for what in ("largest", "relative", "codes", "rounded", "product")
    )
    graph.nodes += [
        helper.make_node("ReduceMax", [shares, axis], [largest], name=largest, keepdims=1),
        helper.make_node("Div", [shares, largest], [relative], name=relative),
        helper.make_node("QuantizeLinear", [relative, scale, zero], [codes], name=codes),
        helper.make_node("DequantizeLinear", [codes, scale, zero], [rounded], name=rounded),
        helper.make_node("Mul", [plain, largest], [result], name=f"{result}.sized"),
    ]
    product.input[0], product.output[0] = rounded, plain
