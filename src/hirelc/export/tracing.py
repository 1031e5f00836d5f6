"""From a torch network to an ONNX graph in float, with a mark wherever an activation is quantized.

`torch.export` follows the network; a batch of any size can be run. Networks that take `len()` of a tensor are followed
by its strict way, the others by its plain one.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx
import onnxscript
import torch
from onnx.defs import OpSchema
from torch import Tensor, nn

from hirelc.errors import NetworkError
from hirelc.network.calling import call, logits_of, where_it_failed

DOMAIN, MARK = "hirelc", "Site"
_SCHEMA = OpSchema(
    MARK,
    DOMAIN,
    1,
    inputs=[OpSchema.FormalParameter("values", "T")],
    outputs=[OpSchema.FormalParameter("marked", "T")],
    type_constraints=[("T", ["tensor(float)"], "")],
    attributes=[OpSchema.Attribute("index", OpSchema.AttrType.INT)],
)


@torch.library.custom_op("hirelc::site", mutates_args=())
def _site(values: Tensor, index: int) -> Tensor:
    return values.clone()


@_site.register_fake
def _(values: Tensor, index: int) -> Tensor:
    return torch.empty_like(values)


class Mark:
    """Stands for the quantization of site number `index` while a network is exported."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, values: Tensor) -> Tensor:
        return torch.ops.hirelc.site(values, self.index)  # type: ignore[no-any-return]


def _marked(values: Any, index: int) -> Any:
    return onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, 1), MARK, _SCHEMA)(values, index=index)


Unpack = Callable[[Any], Tensor]


class _Answer(nn.Module):
    """Inputs as one tuple, and the one tensor that the task is about."""

    def __init__(self, network: nn.Module, names: tuple[str, ...] | None, unpack: Unpack) -> None:
        super().__init__()
        self.network, self.names, self.unpack = network, names, unpack

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if self.names is not None:
            return self.unpack(self.network(**dict(zip(self.names, inputs, strict=True))))
        return self.unpack(self.network(*inputs))


def input_names(inputs: Any) -> tuple[str, ...]:
    """The names of the graph's inputs: keywords, or input, input_1, ..."""
    if isinstance(inputs, Mapping):
        return tuple(inputs)
    count = len(inputs) if isinstance(inputs, tuple | list) else 1
    return tuple("input" if i == 0 else f"input_{i}" for i in range(count))


def input_arrays(inputs: Any) -> tuple[Tensor, ...]:
    """The tensors in the order of `input_names`."""
    if isinstance(inputs, Mapping):
        return tuple(inputs.values())
    return tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


def export_graph(network: nn.Module, inputs: Any, opset: int, unpack: Unpack = logits_of) -> onnx.ModelProto:
    """The float graph. Its initialisers carry the names of the network's tensors behind the prefix "network.".

    :param inputs: an example with at least two samples
    :param unpack: what the network returns -> the graph's one output
    :raises NetworkError: torch cannot follow the network, or an operator has no ONNX form (it is named)
    """
    tensors = input_arrays(inputs)
    wrapped = _Answer(network, tuple(inputs) if isinstance(inputs, Mapping) else None, unpack).eval()
    batch = torch.export.Dim("batch")
    shapes = (tuple({0: batch} for _ in tensors),)
    with _quiet(), torch.no_grad():
        program = _followed(wrapped, tensors, shapes)
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=list(input_names(inputs)),
                output_names=["logits"],
                optimize=False,
                verbose=False,
                custom_translation_table={torch.ops.hirelc.site.default: _marked},
            )
        except Exception as error:
            raise NetworkError(_translation_words(error, program)) from error
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    return model


def _followed(network: _Answer, tensors: tuple[Tensor, ...], shapes: Any) -> Any:
    errors: list[Exception] = []
    for strict in (False, True):
        try:
            return torch.export.export(network, (tensors,), dynamic_shapes=shapes, strict=strict)
        except Exception as error:  # noqa: BLE001 - torch.export raises errors of many kinds
            errors.append(error)
    reasons = [next((line.strip() for line in str(e).splitlines() if line.strip()), type(e).__name__) for e in errors]
    advice = " (a branch that depends on the data must become torch.where)" if "data-dependent" in reasons[0] else ""
    place = where_it_failed(network.network, errors[0])
    raise NetworkError(
        f"torch.export cannot follow the network{place}, so there is no ONNX of it: {reasons[0][:300]}{advice}; "
        f"its strict way says: {reasons[1][:300]}"
    ) from errors[0]


def _translation_words(error: BaseException, program: Any) -> str:
    """Names the operator that has no ONNX form, and the module that calls it, from the exporter's chain of errors."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    for text in reversed(texts):
        found = re.search(r"target=([\w.:]+)|No ONNX function found for <OpOverload\(op='([\w.:]+)'", text)
        if found:
            name = (found[1] or found[2]).removeprefix("torch.ops.")
            node = re.search(r"%(\w+) :[^%]*target=(?:torch\.ops\.)?" + re.escape(name), text)
            place = _caller(program, name, node[1] if node else "")
            return f"the operator {name}{place} has no ONNX form: write that part of the network with other operators"
    return f"the ONNX exporter fails: {texts[-1].strip()[:300]}"


def _caller(program: Any, operator: str, node: str) -> str:
    """The module whose call holds a node of the program, as words: found by its name, its operator, or what that is made of."""
    base = operator.split(".")[1] if "." in operator else operator
    for graph in (program.graph, program.run_decompositions().graph):
        calls = [n for n in graph.nodes if n.op == "call_function"]
        same = [n for n in calls if n.name == node] or [n for n in calls if base in str(n.target).split(".")[1:2]]
        same = same or [n for n in calls if base in str(n.target)]
        stack = same[0].meta.get("nn_module_stack") if same else None
        path = list(stack.values())[-1][0] if stack else ""
        if "network." in path:
            return f", called in {path.rpartition('network.')[2]},"
    return ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, and without fused paths that have no ONNX form."""
    fast = torch.backends.mha.get_fastpath_enabled()
    before = logging.root.manager.disable
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        torch.backends.mha.set_fastpath_enabled(fast)


def run_network(network: nn.Module, inputs: Any) -> Tensor:
    """Logits of a network, float32."""
    with torch.no_grad():
        return logits_of(call(network, inputs)).float()
