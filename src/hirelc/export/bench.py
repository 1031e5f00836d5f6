"""How fast and how large a compressed network is beside its original: both in onnxruntime, in the same run.

Sessions take turns, so that whatever else the machine does hits both; medians are compared, and their spread is told.
Peak memory is measured in a process of its own for each model.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from hirelc.artifact.container import read
from hirelc.artifact.load import load
from hirelc.batches import map_inputs
from hirelc.compression.activations import attach, attached, observe
from hirelc.errors import ExecutionError, FormatError, RunError
from hirelc.export.onnx import Settings, export_network, float_model, kernels_of
from hirelc.export.runtime import feed, session
from hirelc.export.tracing import input_arrays, input_names
from hirelc.network.calling import call
from hirelc.network.example import guess_example
from hirelc.network.kernels import CONVOLUTIONS, TRANSPOSED, kernel_parameters
from hirelc.network.trace import original_bytes

RUNTIMES = ("onnxruntime", "openvino")
WARM_UP = 2


@dataclass(frozen=True)
class Latency:
    """One model at one batch size.

    :param milliseconds: median over the repeats, of one call
    :param spread: the middle half of the repeats, in milliseconds (first and third quartile)
    :param processor_ms: median of the processor time of a call, over all threads: other programs disturb it less
    """

    runtime: str
    model: str
    batch: int
    milliseconds: float
    spread: tuple[float, float]
    processor_ms: float


@dataclass(frozen=True)
class Bench:
    """Sizes in bytes, peak memory in MiB, times in milliseconds.

    :param macs: multiply-accumulates of one sample, original and compressed; None where unknown
    :param peak_mib: model -> resident memory of a process that only runs it, at the largest batch
    """

    threads: int
    size_bytes: dict[str, int]
    latencies: tuple[Latency, ...]
    peak_mib: dict[str, float]
    macs: tuple[int, int] | None = None

    def speedup(self, batch: int, runtime: str = "onnxruntime") -> float:
        """Median of the original over that of the compressed."""
        times = {
            entry.model: entry.milliseconds for entry in self.latencies if (entry.runtime, entry.batch) == (runtime, batch)
        }
        return times["original"] / times["compressed"]

    def to_json(self) -> dict[str, Any]:
        batches = dict.fromkeys((entry.runtime, entry.batch) for entry in self.latencies)
        speedups = [{"runtime": r, "batch": b, "speedup": self.speedup(b, r)} for r, b in batches]
        return {**asdict(self), "speedups": speedups}


def time_models(
    models: dict[str, bytes], example: Any, batches: Sequence[int], threads: int, repeats: int, runtime: str = "onnxruntime"
) -> list[Latency]:
    """Times models in turns.

    :param models: name -> ONNX model
    :param example: inputs of at least one sample; its samples are repeated to fill a batch
    :raises RunError: the runtime is not known or not installed
    """
    runners = {name: _runner(model, threads, runtime) for name, model in models.items()}
    found = []
    for batch in batches:
        inputs = resized(example, batch)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
        for turn in range(WARM_UP + repeats):
            for name, runner in runners.items():
                begun = time.perf_counter(), time.process_time()
                runner(inputs)
                if turn >= WARM_UP:
                    taken[name].append((1000 * (time.perf_counter() - begun[0]), 1000 * (time.process_time() - begun[1])))
        for name, values in taken.items():
            walls, processor = zip(*values, strict=True)
            low, middle, high = (float(q) for q in np.percentile(walls, [25, 50, 75]))
            found.append(Latency(runtime, name, batch, middle, (low, high), float(np.median(processor))))
    return found


def resized(inputs: Any, batch: int) -> Any:
    """The same inputs with another number of samples."""

    def fill(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[torch.arange(batch) % len(tensor)].contiguous()

    return map_inputs(inputs, fill)


def _runner(model: bytes, threads: int, runtime: str) -> Callable[[Any], Any]:
    if runtime == "onnxruntime":
        running = session(model, threads)
        return lambda inputs: running.run(None, feed(running, inputs))
    if runtime == "openvino":
        return _openvino(model, threads)
    raise RunError(f"unknown runtime {runtime!r}: use {' or '.join(RUNTIMES)}")


def _openvino(model: bytes, threads: int) -> Callable[[Any], Any]:
    try:
        import openvino
    except ImportError:
        raise RunError("the runtime openvino is not installed: pip install openvino") from None
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(model, b""), "CPU", settings)
    names = [port.get_any_name() for port in compiled.inputs]

    def run(inputs: Any) -> Any:
        arrays = [tensor.numpy() for tensor in input_arrays(inputs)]
        named = dict(zip(input_names(inputs), arrays, strict=True))
        return compiled({name: named[name] for name in names})

    return run


_MEASURE = """
import json, pathlib, resource, sys
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
options.intra_op_num_threads = int(sys.argv[3])
running = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
values = np.load(sys.argv[2])
wanted = {i.name for i in running.get_inputs()}
running.run(None, {name: values[name] for name in values.files if name in wanted})
status = pathlib.Path("/proc/self/status")  # unlike getrusage, it does not count what the parent process held
lines = status.read_text().splitlines() if status.exists() else []
peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
print(json.dumps((peaks or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])[0] / 1024))
"""


def peak_memory(model: bytes, inputs: Any, threads: int) -> float:
    """MiB of resident memory, at most, of a process that loads and runs the model once.

    :raises ExecutionError: that process fails
    """
    with tempfile.TemporaryDirectory() as folder:
        path, values = Path(folder) / "model.onnx", Path(folder) / "inputs.npz"
        path.write_bytes(model)
        arrays = [tensor.numpy() for tensor in input_arrays(inputs)]
        named: dict[str, Any] = dict(zip(input_names(inputs), arrays, strict=True))
        np.savez(values, **named)
        command = [sys.executable, "-c", _MEASURE, str(path), str(values), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExecutionError(f"measuring memory failed in its own process: {last}")
    return float(json.loads(done.stdout))


def bench(
    file: str | Path,
    factory: Callable[[], nn.Module],
    onnx_path: str | Path | None = None,
    *,
    example: Any = None,
    batches: Sequence[int] = (1, 64),
    threads: int = 0,
    repeats: int = 20,
) -> Bench:
    """Size, latency and memory of a file's network as an integer ONNX model beside its original in fp32, in one run.

    >>> measured = hirelc.bench("runs/mine/model.hirelc", make_net, example=torch.randn(4, 8), batches=[4], repeats=3)
    >>> measured.speedup(batch=4) > 0
    True

    :param onnx_path: of `export_onnx`; made anew, without a check of its accuracy, when not given
    :param example: inputs of a few samples; guessed when not given, with the lengths that the ONNX model was exported with
    :param threads: 0 for as many as torch uses
    :raises FormatError: a file is damaged, or the factory builds another network
    :raises RunError: batches, threads or repeats make no sense
    """
    if not batches or min(batches) < 1 or repeats < 1 or threads < 0:
        raise RunError("--batch and --repeats must be at least 1, --threads at least 0 (0: as many as torch uses)")
    file = Path(file)
    original = factory().eval()
    network = load(file, factory)
    inputs = guess_example(original).inputs if example is None else example
    compressed = draft(file, network, inputs).SerializeToString() if onnx_path is None else read_onnx(Path(onnx_path))
    wanted = model_inputs(compressed)
    if onnx_path is not None and example is None:
        inputs = shaped_like(wanted, inputs)
    check_inputs(wanted, inputs)
    models = {"original": float_model(original, inputs).SerializeToString(), "compressed": compressed}
    threads = threads or torch.get_num_threads()
    latencies: list[Latency] = []
    for runtime in installed_runtimes():
        latencies += time_models(models, inputs, batches, threads, repeats, runtime)
    largest = resized(inputs, max(batches))
    sizes = {
        "original safetensors": original_bytes(original),
        "original ONNX": len(models["original"]),
        "compressed .hirelc": file.stat().st_size,
        "compressed ONNX": len(compressed),
    }
    peaks = {name: peak_memory(model, largest, threads) for name, model in models.items()}
    return Bench(threads, sizes, tuple(latencies), peaks, (count_macs(original, inputs), count_macs(network, inputs)))


@dataclass(frozen=True)
class ModelInput:
    """What an ONNX model says of an input.

    :param shape: a number where the length is fixed, a name where it is not
    :param kind: as onnxruntime writes it, "tensor(int64)"
    """

    shape: tuple[int | str | None, ...]
    kind: str


def model_inputs(model: bytes) -> dict[str, ModelInput]:
    """The inputs of an ONNX model by name, in its order."""
    return {i.name: ModelInput(tuple(i.shape), i.type) for i in session(model, 1).get_inputs()}


def shaped_like(wanted: Mapping[str, ModelInput], inputs: Any) -> Any:
    """A guessed example as a model wants it: repeated or cut to the lengths that its inputs are fixed to (texts, signals),
    and with the integer inputs that were not guessed: masks of ones, everything else zeros."""
    shapes = iter([wanted[name].shape if name in wanted else () for name in input_names(inputs)])

    def fitted(tensor: torch.Tensor) -> torch.Tensor:
        for dim, size in enumerate(next(shapes)[: tensor.ndim]):
            if dim > 0 and isinstance(size, int) and size != tensor.shape[dim]:
                tensor = tensor.index_select(dim, torch.arange(size) % tensor.shape[dim])
        return tensor

    inputs = map_inputs(inputs, fitted)
    if isinstance(inputs, dict):
        samples = len(next(iter(inputs.values())))
        for name, missing in wanted.items():
            fixed = missing.shape[1:]
            lengths = [size for size in fixed if isinstance(size, int)]
            if name not in inputs and missing.kind == "tensor(int64)" and len(lengths) == len(fixed):
                inputs[name] = torch.full((samples, *lengths), int("mask" in name))
    return inputs


def check_inputs(wanted: Mapping[str, ModelInput], inputs: Any) -> None:
    """:raises RunError: the model takes inputs of another shape"""
    missing = sorted(set(wanted) - set(input_names(inputs)))
    if missing and isinstance(inputs, dict):
        raise RunError(f"the ONNX model takes {', '.join(missing)}, too: from Python, pass hirelc.bench an example that has it")
    for name, tensor in zip(input_names(inputs), input_arrays(inputs), strict=True):
        given = list(tensor.shape)
        shape = [*wanted[name].shape] if name in wanted else given
        if len(shape) != len(given) or any(isinstance(a, int) and a != b for a, b in zip(shape, given, strict=True)):
            raise RunError(
                f"the ONNX model's {name!r} has shape {shape}, the benchmark's {given}: give --input-shape as it was exported"
            )


def draft(file: Path, network: nn.Module, example: Any) -> onnx.ModelProto:
    """The integer model of a file for timing: ranges that the file lacks are found on the example alone."""
    contents = read(file)
    kernels = kernels_of(contents)
    if not attached(network):
        attach(network, observe(network, [k.name for k in kernels], [example]).sites)
    return export_network(network, kernels, example, Settings(), {})[0]


def count_macs(network: nn.Module, inputs: Any) -> int:
    """Multiply-accumulates of all kernels for one sample, seen in one forward pass."""
    total = 0
    samples = len(input_arrays(inputs)[0])

    def count(module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal total
        result = output[0] if isinstance(output, tuple) else output
        channels = result.shape[1] if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) else result.shape[-1]
        weights = sum(getattr(module, found.attribute).numel() for found in kernel_parameters(module))
        total += weights * result.numel() // (samples * channels)

    handles = []
    for module in network.modules():
        if kernel_parameters(module) and not isinstance(module, nn.Embedding):
            handles.append(module.register_forward_hook(count))
    try:
        with torch.no_grad():
            call(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return total


def installed_runtimes() -> tuple[str, ...]:
    """onnxruntime, and openvino where it is installed."""
    return RUNTIMES if importlib.util.find_spec("openvino") is not None else RUNTIMES[:1]


def read_onnx(path: Path) -> bytes:
    """The bytes of an ONNX model.

    :raises FormatError: it cannot be read, or is none
    """
    try:
        content = path.read_bytes()
        onnx.checker.check_model(onnx.load_from_string(content))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001 - protobuf and onnx raise errors of their own
        raise FormatError(f"{path}: not an ONNX model: {str(error).splitlines()[0]}") from None
    return content
