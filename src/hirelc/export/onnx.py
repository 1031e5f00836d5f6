"""A .hirelc file as an ONNX model: the slim network, BatchNorms folded, weights and activations as whole numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from hirelc.artifact.container import read
from hirelc.artifact.contents import Contents
from hirelc.artifact.load import build
from hirelc.batches import Batches, first_samples
from hirelc.compression.activations import ActivationSite, attach, attached, detach, hook, observe
from hirelc.compression.quantize import Quantized
from hirelc.errors import DataError, FormatError, NetworkError, RunError
from hirelc.export.fold import Folded, fold
from hirelc.export.graph import (
    Graph,
    drop_idle_clips,
    join_rows,
    put_biases,
    put_four_bits,
    put_sites,
    put_weights,
    sink_dequantization,
    tidy,
)
from hirelc.export.integers import FloatWeight, IntegerWeight, as_integers
from hirelc.export.parity import Parity, Probe, check_parity
from hirelc.export.products import integer_products
from hirelc.export.simplify import simplify
from hirelc.export.tracing import Mark, Unpack, export_graph
from hirelc.export.widths import fill_channels
from hirelc.network.calling import logits_of
from hirelc.network.example import guess_example
from hirelc.network.trace import check_module
from hirelc.store import atomic_write
from hirelc.task import CLASSIFICATION, Task
from hirelc.version import __version__

LEAST_OPSET, INT4_OPSET, DEFAULT_OPSET = 18, 21, 21
WEIGHTS, ACTIVATIONS = ("auto", "int8", "int4"), ("int8", "float")
CALIBRATION = 512  # samples


@dataclass(frozen=True)
class StoredKernelCodes:
    """A kernel as the file holds it."""

    name: str
    shape: tuple[int, ...]
    channel_dim: int
    quantized: Quantized


@dataclass(frozen=True)
class ExportedKernel:
    """How one kernel is held in the ONNX model.

    :param bits: in the .hirelc file
    :param stored_as: "INT4", "INT8", "UINT8" or "FLOAT"
    :param size_bytes: of its numbers and scales in the ONNX model
    :param note: why it is float, or why its input is
    """

    name: str
    bits: int
    number_type: str
    granularity: str
    stored_as: str
    size_bytes: int
    note: str = ""


@dataclass(frozen=True)
class Exported:
    """What an export made.

    :param sites: quantized activations
    :param size_bytes: of the ONNX model
    """

    path: str
    size_bytes: int
    opset: int
    sites: int
    kernels: tuple[ExportedKernel, ...]
    parity: Parity

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Settings:
    """What may be chosen about an export.

    :param opset: of the ONNX model
    :param weights: "int8"; "int4", INT4 where a kernel fits; "auto", the same where the opset has INT4
    :param activations: "int8" or "float"
    :param samples: compared at most
    """

    opset: int = DEFAULT_OPSET
    weights: str = "auto"
    activations: str = "int8"
    samples: int = 10_000

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise RunError(f"--weights {self.weights!r}: use {', '.join(WEIGHTS)}")
        if self.activations not in ACTIVATIONS:
            raise RunError(f"--activations {self.activations!r}: use {' or '.join(ACTIVATIONS)}")
        least = INT4_OPSET if self.weights == "int4" else LEAST_OPSET
        if self.opset < least:
            what = "INT4 weights need" if self.weights == "int4" else "the export needs"
            raise RunError(f"opset {self.opset} is too old: {what} at least {least}")
        newest = onnx.defs.onnx_opset_version()
        if self.opset > newest:
            raise RunError(f"opset {self.opset} is newer than the installed onnx knows: at most {newest}")
        if self.samples < 1:
            raise RunError(f"--samples must be at least 1, not {self.samples}")


def export_onnx(
    file: str | Path,
    factory: Callable[[], nn.Module],
    path: str | Path,
    *,
    data: Batches | None = None,
    calibration: Batches | None = None,
    example: Any = None,
    settings: Settings | None = None,
    task: Task = CLASSIFICATION,
) -> Exported:
    """Writes the network of a file as an ONNX model and checks it in onnxruntime.

    >>> settings = Settings(activations="float")
    >>> exported = hirelc.export_onnx(
    ...     "runs/mine/model.hirelc", make_net, "net.onnx", example=torch.randn(8, 8), settings=settings
    ... )
    >>> exported.path, exported.parity.agreement
    ('net.onnx', 100.0)

    :param factory: builds the original network
    :param data: labelled samples on which graph and file are compared; without, they are on an example input
    :param example: inputs of two samples or more, in place of the first of `data` or of a guess
    :param calibration: samples from which ranges of activations are found when the file carries none
    :param task: what the network is for: how its output is read, and by what graph and file are compared
    :raises FormatError: the file is damaged, or the factory builds another network
    :raises NetworkError: the network has no ONNX form, or the graph computes something else; nothing is written then
    :raises DataError: the file has no ranges of activations, and there is no `calibration`
    """
    settings = settings or Settings()
    file, path = Path(file), Path(path)
    contents = read(file)
    original = factory()
    check_module(original)
    try:
        network = build(contents, original)
    except FormatError as error:
        raise error.inside(file) from error
    kernels = kernels_of(contents)
    if example is None:
        example = guess_example(network).inputs if data is None else first_samples(data, 2)[0]
    reference = copy.deepcopy(network)  # as the file has it
    left = _quantize_activations(network, kernels, calibration or data, settings)
    as_in_file = attached(network) == attached(reference)
    model, table, probes = export_network(network, kernels, example, settings, left, task.unpack or logits_of)
    parity = check_parity(model, network, probes, data, example, settings.samples, task, None if as_in_file else reference)
    content = model.SerializeToString()
    atomic_write(path, content)
    sites = len(attached(network))
    return Exported(str(path), len(content), settings.opset, sites, tuple(table), parity)


def kernels_of(contents: Contents) -> list[StoredKernelCodes]:
    """What the export needs of each kernel of a file."""
    return [StoredKernelCodes(k.name, k.shape, k.channel_dim, contents.kernels[k.name]) for k in contents.layout.kernels]


def _quantize_activations(
    network: nn.Module, kernels: Sequence[StoredKernelCodes], data: Batches | None, settings: Settings
) -> dict[str, str]:
    """Attaches the sites that are asked for; the kernels whose input stays float, with the reason."""
    if settings.activations == "float":
        detach(network)
        return {}
    if attached(network):
        return {}
    if data is None:
        raise DataError("the file carries no ranges of activations: give --data to find them, or --activations float")
    found = observe(network, [k.name for k in kernels], [first_samples(data, CALIBRATION)[0]])
    attach(network, found.sites)
    return found.left


def export_network(
    network: nn.Module,
    kernels: Sequence[StoredKernelCodes],
    example: Any,
    settings: Settings,
    left: Mapping[str, str],
    unpack: Unpack = logits_of,
) -> tuple[onnx.ModelProto, list[ExportedKernel], list[Probe]]:
    """The graph of a network, the table of its kernels, and where to compare the two.

    :param network: with its activations quantized by `attach`, or not at all
    """
    sites = attached(network)
    folded = fold(network, [k.name for k in kernels], sites, example)
    for index, site in enumerate(sites):
        hook(folded.network, site.module, site.side, Mark(index))
    for name, rows in folded.rows.items():
        if name in folded.behind:
            rows.rounding = Mark(folded.behind[name])
    graph = Graph(export_graph(folded.network, example, settings.opset, unpack))
    named = _initialisers(folded, graph)
    whole = {k.name: as_integers(k.quantized, k.shape, k.channel_dim, folded.factors.get(k.name)) for k in kernels}
    integers = {named[name]: w for name, w in whole.items() if isinstance(w, IntegerWeight) and name in named}
    held = put_weights(graph, integers)
    behind = put_sites(graph, sites)
    graph = Graph(tidy(graph.finished()))
    simplify(graph)
    drop_idle_clips(graph)
    join_rows(graph)
    sink_dequantization(graph)
    integer_products(graph)
    fill_channels(graph)
    put_biases(graph)
    graph.finished()
    probes = _probes(graph, folded, sites, named, held, behind)
    if settings.weights != "int8" and settings.opset >= INT4_OPSET:
        put_four_bits(graph, [n for name, w in integers.items() if w.fits_four_bits for n in held[name]])
    model = graph.finished()
    del model.graph.value_info[:]  # shapes in between, from before all this
    model.producer_name, model.producer_version = "hirelc", __version__
    onnx.checker.check_model(model)
    table = [_row(graph, k, whole[k.name], held.get(named.get(k.name, ""), []), named, left) for k in kernels]
    return model, table, probes


def _initialisers(folded: Folded, graph: Graph) -> dict[str, str]:
    """Kernel -> its initialiser; kernels that the graph does not use are left out."""
    names: dict[int, list[str]] = {}
    for name, parameter in folded.network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(f"network.{name}")
    found = {}
    for kernel, parameter in folded.weights.items():
        present = [name for name in names[id(parameter)] if name in graph.constants]
        if present:
            found[kernel] = present[0]
    return found


def _row(
    graph: Graph,
    kernel: StoredKernelCodes,
    whole: IntegerWeight | FloatWeight,
    held: list[str],
    named: Mapping[str, str],
    left: Mapping[str, str],
) -> ExportedKernel:
    choice = kernel.quantized.choice
    note = f"float input: {left[kernel.name]}" if kernel.name in left else ""
    if isinstance(whole, FloatWeight):
        stored, size = "FLOAT", 4 * kernel.quantized.codes.numel()
        note = "; ".join(filter(None, [whole.reason, note]))
    else:
        names = [f"{name}.int4" if f"{name}.int4" in graph.constants else name for name in held]
        tensors = [graph.constants[name] for name in names if name in graph.constants]
        stored = onnx.TensorProto.DataType.Name(tensors[0].data_type) if tensors else "NONE"
        size = sum(len(tensor.raw_data) for tensor in tensors) + 4 * whole.scale.size
        if not tensors:
            note = "an equal tensor stands for it, or the graph does not use it"
    if kernel.name not in named:
        note = "an equal tensor stands for it, or the graph does not use it"
    return ExportedKernel(kernel.name, choice.bits, choice.number_type.value, choice.granularity.value, stored, size, note)


def _probes(
    graph: Graph,
    folded: Folded,
    sites: Sequence[ActivationSite],
    named: Mapping[str, str],
    held: Mapping[str, list[str]],
    behind: Mapping[int, str],
) -> list[Probe]:
    """Where each kernel's result is: behind its site, or the operator's own result, with its bias."""
    probes = []
    made = {name for node in graph.nodes for name in node.output}
    for kernel, name in named.items():
        path, _, attribute = kernel.rpartition(".")
        if attribute != "weight":
            continue
        if kernel in folded.behind and behind[folded.behind[kernel]] in made:
            site = sites[folded.behind[kernel]]
            probes.append(Probe(kernel, behind[folded.behind[kernel]], site.module, site.side))
            continue
        results = [t for start in held.get(name, [name]) for t in _results(graph, start)]
        if len(results) == 1:
            rows = folded.rows.get(kernel)
            kept = None if rows is None else rows.kept
            where = folded.norms.get(kernel, path)
            if where is None:  # no module of the network gives what the operator gives
                continue
            probes.append(Probe(kernel, results[0], where, "output", kept, rows.dim if rows else -1, before=True))
    return probes


def _results(graph: Graph, weight: str) -> list[str]:
    """The results of the operators that read a weight, behind the addition of a bias."""
    found = []
    for node in graph.consumers(weight):
        if node.op_type in ("DequantizeLinear", "Transpose", "Cast"):
            found += _results(graph, node.output[0])
            continue
        result = node.output[0]
        readers = graph.consumers(result)
        if node.op_type == "MatMul" and len(readers) == 1 and readers[0].op_type == "Add":
            other = [name for name in readers[0].input if name != result]
            if other and other[0] in graph.constants and len(graph.constants[other[0]].dims) == 1:
                result = readers[0].output[0]
        found.append(result)
    return found


def float_model(network: nn.Module, example: Any, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """The fp32 ONNX model of any network: what the compressed one is timed against."""
    copied = copy.deepcopy(network).eval()
    if not isinstance(copied, nn.Module):
        raise NetworkError("a network is expected")
    graph = Graph(tidy(export_graph(copied, example, opset)))
    simplify(graph)
    return graph.finished()
