"""Rewrites of the graph on graphs made by hand: what they change, and that the result stays the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hirelc.export.graph import Graph, sink_dequantization
from hirelc.export.products import integer_products
from hirelc.export.runtime import session
from hirelc.export.simplify import attribute
from hirelc.export.widths import fill_channels

GENERATOR = np.random.default_rng(0)


class Maker:
    """Nodes and initialisers of a graph with one input and the output "logits"."""

    def __init__(self, shape: list[Any]) -> None:
        self.shape, self.nodes, self.constants = shape, [], []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def rounded(self, tensor: str, scale: float = 0.02, zero: int = 128) -> str:
        names = [self.constant(f"{tensor}.s", np.float32(scale)), self.constant(f"{tensor}.z", np.uint8(zero))]
        codes = self.node("QuantizeLinear", [tensor, *names], f"{tensor}.q")
        return self.node("DequantizeLinear", [codes, *names], f"{tensor}.dq")

    def conv(self, tensor: str, name: str, *shape: int, group: int = 1, bias: bool = True) -> str:
        """Weights of whole numbers, one scale for each output channel; the result rounded."""
        names = [
            self.constant(f"{name}.codes", GENERATOR.integers(-8, 8, shape).astype(np.int8)),
            self.constant(f"{name}.scale", GENERATOR.uniform(0.01, 0.03, shape[0]).astype(np.float32)),
            self.constant(f"{name}.zero", np.zeros(shape[0], np.int8)),
        ]
        weight = self.node("DequantizeLinear", names, f"{name}.weight", axis=0)
        more = [self.constant(f"{name}.bias", GENERATOR.normal(size=shape[0]).astype(np.float32))] if bias else []
        pads = {"pads": [shape[2] // 2] * 4, "kernel_shape": list(shape[2:])}
        return self.rounded(self.node("Conv", [tensor, weight, *more], name, group=group, **pads))

    def model(self, result: str) -> onnx.ModelProto:
        self.node("Identity", [result], "logits")
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [value("input", TensorProto.FLOAT, self.shape)],
            [value("logits", TensorProto.FLOAT, ["batch", *"abc"])],
            self.constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(made, full_check=True)
        return made


def results(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    return np.asarray(session(model.SerializeToString(), 1).run(["logits"], {"input": values})[0])


def inverted_residual(width: int, entering: int = 3) -> onnx.ModelProto:
    maker = Maker(["batch", entering, 6, 6])
    x = maker.conv(maker.rounded("input"), "stem", 8, entering, 3, 3)
    x = maker.conv(x, "wide", width, 8, 1, 1)
    x = maker.conv(x, "each", width, 1, 3, 3, group=width, bias=False)
    return maker.model(maker.conv(x, "narrow", 8, width, 1, 1))


@pytest.mark.parametrize(("width", "filled"), [(13, 16), (16, 16), (25, 32), (18, 18)])
def test_depthwise_convolutions_are_filled_up_to_sixteen_and_give_the_same(width: int, filled: int) -> None:
    model = inverted_residual(width)
    values = GENERATOR.normal(size=(3, 3, 6, 6)).astype(np.float32)
    wanted = results(model, values)
    graph = Graph(model)
    fill_channels(graph)
    found = graph.finished()
    shapes = {t.name: tuple(t.dims) for t in found.graph.initializer}
    assert shapes["wide.codes"] == (filled, 8, 1, 1) and shapes["narrow.codes"] == (8, filled, 1, 1)  # 18 to 32 is too much
    assert shapes["each.codes"] == (filled, 1, 3, 3) and shapes["stem.codes"] == (8, 4, 3, 3)
    assert next(attribute(n, "group") for n in found.graph.node if n.name == "each") == filled
    assert (results(found, values) == wanted).all()


def test_channels_that_something_else_reads_are_left_alone() -> None:
    maker = Maker(["batch", 4, 6, 6])
    x = maker.conv(maker.rounded("input"), "first", 15, 4, 1, 1)
    y = maker.conv(x, "second", 15, 15, 1, 1)  # both go into a sum
    model = maker.model(maker.conv(maker.rounded(maker.node("Add", [x, y], "sum")), "third", 8, 15, 1, 1))
    graph = Graph(model)
    fill_channels(graph)
    shapes = {t.name: tuple(t.dims) for t in graph.finished().graph.initializer}
    assert shapes["first.codes"] == (15, 4, 1, 1) and shapes["second.codes"] == (15, 15, 1, 1)


def attention(fused: bool) -> onnx.ModelProto:
    """Rounded queries, keys and values of two heads, from one layer or from three."""
    maker = Maker(["batch", 5, 8])
    shape = maker.constant("shape", [-1, 5, 2, 12 if fused else 4])
    parts = []
    for name in ["qkv"] if fused else ["q", "k", "v"]:
        weight = maker.constant(f"{name}.w", GENERATOR.normal(size=(8, 24 if fused else 8)).astype(np.float32))
        made = maker.node("Reshape", [maker.rounded(maker.node("MatMul", ["input", weight], name), 0.1), shape], f"{name}.4d")
        parts.append(maker.node("Transpose", [made], f"{name}.heads", perm=[0, 2, 1, 3]))
    if fused:
        order = [maker.constant(f"part{i}", np.arange(4 * i, 4 * i + 4)) for i in range(3)]
        parts = [maker.node("Gather", [parts[0], o], f"{o}.heads", axis=3) for o in order]
    q = maker.node("Mul", [parts[0], maker.constant("root", np.float32(0.5))], "sized")
    k = maker.node("Transpose", [parts[1]], "keys", perm=[0, 1, 3, 2])
    shares = maker.node("Softmax", [maker.node("MatMul", [q, k], "scores")], "shares", axis=-1)
    return maker.model(maker.node("MatMul", [shares, parts[2]], "mixed"))


@pytest.mark.parametrize("fused", [False, True])
def test_products_of_attention_become_integer(fused: bool) -> None:
    model = attention(fused)
    values = GENERATOR.normal(size=(7, 5, 8)).astype(np.float32)
    wanted = results(model, values)
    graph = Graph(model)
    sink_dequantization(graph)
    integer_products(graph)
    found = graph.finished()
    makers = {name: node for node in found.graph.node for name in node.output}
    constants = {t.name: t for t in found.graph.initializer}
    for product in ("scores", "mixed", "attention.product"):
        node = next((n for n in found.graph.node if n.op_type == "MatMul" and n.output[0].startswith(product)), None)
        if node is None:
            continue
        kinds = [constants[makers[name].input[2]].data_type for name in node.input]
        assert kinds == [TensorProto.UINT8, TensorProto.INT8]  # the one fast pair
    assert not any(node.op_type == "Mul" and node.input[0] == "q.heads" for node in found.graph.node)  # in the scale
    error = np.abs(results(found, values) - wanted).max() / np.abs(wanted).max()
    assert 0 < error < 0.01  # attention itself is rounded to 1/255 of the largest share of its row
