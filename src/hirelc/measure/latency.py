"""What a call takes: measured kernel by kernel at several numbers of channels, looked up in between.

The table is measured once, kept as JSON and decides alike wherever it is read again. What it says of a whole network is
the sum over its kernels and one constant for all the rest, such that it is right about the original.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hirelc.batches import map_inputs
from hirelc.compression.prune import canonical
from hirelc.errors import RunError
from hirelc.layout import slim_kernel_shape
from hirelc.network.calling import call, first_tensor
from hirelc.network.kernels import CONVOLUTIONS, TRANSPOSED
from hirelc.network.spec import Kernel, NetworkSpec, Pruning
from hirelc.policy import Choice, Policy

TABLE_VERSION = 1
COUNTS = 4  # kept-channel counts along each dimension that can shrink
WARM_UP, LEAST_REPEATS, MOST_REPEATS = 3, 7, 51
SECONDS = 0.05  # that the repeats of one measurement may take, beyond the least

Clock = Callable[[], float]
Shape = tuple[int, ...]
KernelTimer = Callable[[Kernel, Shape], float]


@dataclass(frozen=True)
class KernelTimes:
    """One kernel's milliseconds over the shapes that it can have.

    :param dims: dimensions of the kernel that can shrink
    :param sizes: of each of them, ascending
    :param milliseconds: over the product of the sizes, the last dimension fastest
    """

    dims: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...]
    milliseconds: tuple[float, ...]

    def at(self, shape: Shape) -> float:
        """Interpolated linearly along each dimension; beyond the ends as at the ends."""
        values = np.array(self.milliseconds).reshape([len(sizes) for sizes in self.sizes])
        for dim, sizes in zip(self.dims, self.sizes, strict=True):
            place = float(np.interp(shape[dim], sizes, np.arange(len(sizes))))
            low = min(math.floor(place), len(sizes) - 1)
            high = min(low + 1, len(sizes) - 1)
            values = values[low] + (place - low) * (values[high] - values[low])
        return float(values)


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of one network on one machine.

    :param runtime: what ran the kernels and the network, in words
    :param batch: samples of a call
    :param original_ms: the whole original network, measured
    :param rest_ms: what the kernels' scaled times do not explain; below 0 where what lies between them shrinks with them
    :param scale: on the kernels' own times: in the network, what they lose by losing channels is more or less than alone
    """

    runtime: str
    threads: int
    batch: int
    original_ms: float
    rest_ms: float
    scale: float
    kernels: Mapping[str, KernelTimes]

    @classmethod
    def of(
        cls,
        spec: NetworkSpec,
        timer: KernelTimer,
        wholes: tuple[float, float | None],
        min_keep: float,
        runtime: str,
        threads: int,
        batch: int,
    ) -> LatencyTable:
        """Measures every kernel.

        :param timer: milliseconds of a kernel at a slim shape
        :param wholes: milliseconds of the original, and of the `smallest` network where that was measured: the table is
            then right about both
        :param min_keep: lowest keep_ratio that will be looked up
        """
        original_ms, smallest_ms = wholes
        ratios = np.linspace(min_keep, 1.0, COUNTS)
        policies = [{k.name: Choice(keep_ratio=float(ratio)) for k in spec.kernels} for ratio in ratios]
        kernels = {}
        for kernel in spec.kernels:
            if kernel.macs:
                shapes = [slim_kernel_shape(spec, policy, kernel) for policy in policies]
                kernels[kernel.name] = _times(kernel, shapes, timer)
        total = sum(kernels[k.name].at(k.shape) for k in spec.kernels if k.name in kernels)
        scale = min(1.0, original_ms / total) if total > 0 else 1.0
        if smallest_ms is not None:
            least = smallest(spec, min_keep)
            saved = total - sum(times.at(slim_kernel_shape(spec, least, spec.by_name[n])) for n, times in kernels.items())
            scale = max(0.0, original_ms - smallest_ms) / saved if saved > 0 else 0.0
        return cls(runtime, threads, batch, original_ms, original_ms - scale * total, scale, kernels)

    def kernels_ms(self, spec: NetworkSpec, choices: Mapping[str, Choice]) -> float:
        """Milliseconds of the kernels named.

        :param choices: at least of all kernels that share channels with these
        """
        names = [name for name in choices if name in self.kernels]
        return self.scale * sum(self.kernels[name].at(slim_kernel_shape(spec, choices, spec.by_name[name])) for name in names)

    def predict(self, spec: NetworkSpec, policy: Mapping[str, Choice]) -> float:
        """Milliseconds of a call of the whole network."""
        return self.rest_ms + self.kernels_ms(spec, policy)

    @property
    def words(self) -> str:
        """What was timed, for people."""
        return f"{self.runtime}, {self.threads} thread{'s' if self.threads > 1 else ''}, batch {self.batch}"

    def to_json(self) -> dict[str, Any]:
        return {"version": TABLE_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyTable:
        """
        :raises RunError: the JSON is no latency table of this version
        """
        values = dict(data)
        if values.pop("version", None) != TABLE_VERSION:
            raise RunError(f"not a version {TABLE_VERSION} latency table: remove it to measure a new one")
        try:
            kernels = {
                name: KernelTimes(tuple(v["dims"]), tuple(map(tuple, v["sizes"])), tuple(v["milliseconds"]))
                for name, v in values.pop("kernels").items()
            }
            return cls(**values, kernels=kernels)
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"a damaged latency table ({error}): remove it to measure a new one") from None

    @classmethod
    def loads(cls, text: str) -> LatencyTable:
        """
        :raises RunError: the text is no latency table
        """
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise RunError("a latency table that is no JSON: remove it to measure a new one")
        return cls.from_json(data)


def smallest(spec: NetworkSpec, min_keep: float) -> Policy:
    """The fewest channels that every block may have; the frame keeps all."""
    inside = {name for block in spec.blocks for name in block.kernels}
    ratios = {k.name: min_keep if k.name in inside else 1.0 for k in spec.kernels}
    return canonical(spec, Policy.of({name: Choice(keep_ratio=ratio) for name, ratio in ratios.items()}))


def _times(kernel: Kernel, shapes: Sequence[Shape], timer: KernelTimer) -> KernelTimes:
    counts = [sorted({shape[dim] for shape in shapes} | {kernel.shape[dim]}) for dim in range(len(kernel.shape))]
    dims = tuple(dim for dim, found in enumerate(counts) if len(found) > 1)
    sizes = tuple(tuple(counts[dim]) for dim in dims)
    milliseconds = []
    for point in itertools.product(*sizes):
        shape = list(kernel.shape)
        for dim, size in zip(dims, point, strict=True):
            shape[dim] = size
        milliseconds.append(timer(kernel, tuple(shape)))
    return KernelTimes(dims, sizes, tuple(milliseconds))


def median_ms(run: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """Median milliseconds of a call, over as many as fit a twentieth of a second, seven at least."""
    for _ in range(WARM_UP):
        run()
    taken: list[float] = []
    while len(taken) < LEAST_REPEATS or (len(taken) < MOST_REPEATS and sum(taken) < SECONDS):
        begun = clock()
        run()
        taken.append(clock() - begun)
    return 1000 * float(np.median(taken))


def torch_words() -> str:
    """What the times of `TorchKernels` and `networks_ms` are of."""
    return f"PyTorch {torch.__version__.partition('+')[0]} in float32"


class OneThread:
    """Runs with one thread of torch; as many as before afterwards."""

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._before)


def batch_of(inputs: Any, count: int) -> Any:
    """The same inputs with another number of samples."""
    return map_inputs(inputs, lambda tensor: tensor[torch.arange(count) % len(tensor)].contiguous())


def network_ms(network: nn.Module, inputs: Any, clock: Clock = time.perf_counter) -> float:
    """Median milliseconds of a forward pass in PyTorch with one thread."""
    return networks_ms({"": network}, inputs, clock)[""]


def networks_ms(networks: Mapping[str, nn.Module], inputs: Any, clock: Clock = time.perf_counter) -> dict[str, float]:
    """Median milliseconds of each network in PyTorch with one thread. They take turns: what disturbs one disturbs all."""
    taken: dict[str, list[float]] = {name: [] for name in networks}
    with OneThread(), torch.inference_mode():
        for network in networks.values():
            network.eval()
        for turn in range(WARM_UP + MOST_REPEATS):
            for name, network in networks.items():
                begun = clock()
                call(network, inputs)
                if turn >= WARM_UP:
                    taken[name].append(clock() - begun)
            spent = sum(map(sum, taken.values()))
            if turn >= WARM_UP + LEAST_REPEATS and spent > 10 * SECONDS * len(networks):
                break
    return {name: 1000 * float(np.median(values)) for name, values in taken.items()}


class TorchKernels:
    """A `KernelTimer`: the operator of a kernel alone, in float32 PyTorch, on inputs of the shape it has in the network.

    Kernels that are alike are measured once. A kernel whose rows are scattered back is timed with that.

    :param inputs: of a call, as many samples as are to be timed
    """

    def __init__(self, network: nn.Module, spec: NetworkSpec, inputs: Any, clock: Clock = time.perf_counter) -> None:
        self._clock, self._spec = clock, spec
        self._modules = {k.module: network.get_submodule(k.module) for k in spec.kernels}
        self._batch = len(first_tensor(inputs))
        self._inputs = _input_shapes(network, self._modules, inputs)
        self._known: dict[tuple[Any, ...], float] = {}

    def __call__(self, kernel: Kernel, shape: Shape) -> float:
        module = self._modules[kernel.module]
        scattered = kernel.channels if kernel.pruning is Pruning.ROWS and shape != kernel.shape else 0
        run: Callable[[], Tensor]
        calls = 1
        if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) and kernel.module in self._inputs:
            entering, calls = self._inputs[kernel.module]
            operator, inputs = _convolution(module, entering, shape)
            settings = (module.stride, module.padding, module.dilation, module.groups)
            key: tuple[Any, ...] = (type(module), settings, tuple(inputs.shape), shape, scattered)
            run, dim = lambda: operator(inputs), 1
        else:
            positions = self._batch * kernel.macs // kernel.weights
            leaving, entering_width = shape[kernel.channel_dim], math.prod(shape) // shape[kernel.channel_dim]
            weight, inputs = torch.randn(leaving, entering_width), torch.randn(positions, entering_width)
            key = ("linear", positions, tuple(weight.shape), scattered)
            run, dim = lambda: F.linear(inputs, weight), 1
        if key not in self._known:
            with OneThread(), torch.inference_mode():
                self._known[key] = median_ms(_scattering(run, dim, scattered) if scattered else run, self._clock)
        return calls * self._known[key]


def _input_shapes(network: nn.Module, modules: Mapping[str, nn.Module], inputs: Any) -> dict[str, tuple[Shape, int]]:
    """Module -> (shape of its input, how often it runs in a call)."""
    found: dict[str, tuple[Shape, int]] = {}

    def hook(name: str) -> Callable[[nn.Module, Any], None]:
        def note(_module: nn.Module, arguments: Any) -> None:
            if arguments and isinstance(arguments[0], Tensor):
                found[name] = (tuple(arguments[0].shape), found.get(name, ((), 0))[1] + 1)

        return note

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
    try:
        with torch.inference_mode():
            call(network.eval(), inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _convolution(module: nn.Module, entering: Shape, shape: Shape) -> tuple[nn.Module, Tensor]:
    """A convolution of a slim shape with the settings of another, and an input for it."""
    settings: Any = module
    transposed = isinstance(module, TRANSPOSED)
    depthwise = settings.groups > 1 and settings.groups == settings.in_channels and not transposed
    groups = shape[0] if depthwise else settings.groups
    leaving, width = (shape[1] * groups, shape[0]) if transposed else (shape[0], shape[1] * groups)
    kind: Any = next(c for c in (*CONVOLUTIONS, *TRANSPOSED) if isinstance(module, c))
    common = {"stride": settings.stride, "padding": settings.padding, "dilation": settings.dilation, "groups": groups}
    if transposed:
        common["output_padding"] = settings.output_padding
    smaller = kind(width, leaving, settings.kernel_size, bias=settings.bias is not None, **common)
    return smaller.eval(), torch.randn(entering[0], width, *entering[2:])


def _scattering(run: Callable[[], Tensor], dim: int, full: int) -> Callable[[], Tensor]:
    """With the result scattered back to its full width, as the slim network does."""
    kept = torch.arange(run().shape[dim])

    def scattered() -> Tensor:
        result = run()
        shape = list(result.shape)
        shape[dim] = full
        return result.new_zeros(shape).index_copy(dim, kept, result)

    return scattered
