"""From a file and a factory to an ordinary module in eval mode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hirelc.artifact.container import read
from hirelc.artifact.contents import Contents
from hirelc.compression.activations import attach
from hirelc.compression.fakequant import restore
from hirelc.errors import FormatError
from hirelc.layout import Layout
from hirelc.network.norms import neutralise
from hirelc.network.spec import Kernel, NetworkSpec, Pruning
from hirelc.network.surgery import slim
from hirelc.network.trace import check_module, unique_state, unwrapped


def load(path: str | Path | bytes, factory: Callable[[], nn.Module]) -> nn.Module:
    """The compressed network, physically pruned, with the weights that the file's codes stand for.

    :param path: a .hirelc file (or its bytes)
    :param factory: builds the original, uncompressed network; its weights do not matter
    :returns: an ordinary module in eval mode, on the CPU, float32
    :raises FormatError: the file is damaged, or the factory builds another network
    """
    contents = read(path if isinstance(path, bytes) else Path(path))
    network = factory()
    check_module(network)
    try:
        return build(contents, network)
    except FormatError as error:
        raise error if isinstance(path, bytes) else error.inside(path) from error


def build(contents: Contents, network: nn.Module) -> nn.Module:
    """Turns a freshly built original into the network of the file. `network` itself is not changed."""
    layout, network = contents.layout, unwrapped(network)
    spec = _spec(layout, network)
    _check_state(layout, network)
    _check_couplings(layout, network)
    _check_shapes(layout, unique_state(network))
    try:
        smaller = slim(network.cpu().float(), spec, contents.kept)
    except (IndexError, RuntimeError, AttributeError, KeyError) as error:
        raise FormatError(f"the file's pruning does not fit the network of the factory: {error}") from None
    state = unique_state(smaller)
    with torch.no_grad():
        for kernel in layout.kernels:
            weight = restore(contents.kernels[kernel.name], kernel.shape, kernel.channel_dim)
            _assign(state, kernel.name, weight)
        for tensor in layout.rest:
            _assign(state, tensor.name, contents.value(tensor))
    stored = {t.name for t in layout.rest}
    for path, module in smaller.named_modules():
        if isinstance(module, _BatchNorm) and f"{path}.running_var".removeprefix(".") not in stored:
            neutralise(module)
    attach(smaller, contents.activations)
    return smaller.eval()


def _assign(state: dict[str, Tensor], name: str, value: Tensor) -> None:
    if tuple(state[name].shape) != tuple(value.shape):
        raise FormatError(
            f"{name}: the network of the factory has shape {tuple(state[name].shape)} here, the file {tuple(value.shape)}"
        )
    state[name].copy_(value)


def _check_state(layout: Layout, network: nn.Module) -> None:
    state = unique_state(network)
    stored = [k.name for k in layout.kernels] + [t.name for t in layout.rest]
    missing = [name for name in stored if name not in state]
    if missing:
        raise FormatError(
            f"the factory builds another network than the file's: it has no tensor {missing[0]!r}"
            + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "")
        )
    known = set(stored)
    folded = ("running_mean", "running_var", "num_batches_tracked")
    extra = [name for name in state if name not in known and not name.endswith(folded)]
    if extra:
        raise FormatError(
            f"the factory builds another network than the file's: the file has no tensor {extra[0]!r}"
            + (f" (and {len(extra) - 1} more)" if len(extra) > 1 else "")
        )


def _check_couplings(layout: Layout, network: nn.Module) -> None:
    """Before anything of their size is allocated."""
    state = dict(network.named_parameters()) | dict(network.named_buffers())
    for coupling in (stored.coupling for stored in layout.couplings):
        for m in coupling.members:
            shape = state[m.tensor].shape if m.tensor in state else ()
            if m.dim >= len(shape) or not m.starts or max(m.starts) + coupling.units * m.width > shape[m.dim]:
                raise FormatError(f"{m.tensor}: the file's pruning does not fit this tensor of the factory's network")
    modules = dict(network.named_modules())
    for stored in layout.couplings:
        for change in stored.coupling.attributes:
            before = vars(modules[change.module]).get(change.attribute) if change.module in modules else None
            place = f"{change.module}.{change.attribute}".removeprefix(".")
            if type(before) is not int:
                raise FormatError(f"{place}: the network of the factory has no such whole number, which the file would change")
            if stored.kept * change.per_unit > before:  # pruning makes them less; a file may come from anyone
                raise FormatError(f"{place}: it is {before} in the factory's network, the file would make it more")


def _check_shapes(layout: Layout, state: dict[str, Tensor]) -> None:
    """Channels could be cut from a wider network, too: that it is the file's own shows in the full shapes only."""
    full = {k.name: list(k.shape) for k in layout.kernels} | {t.name: list(t.shape) for t in layout.rest}
    for stored in layout.couplings:
        for m in stored.coupling.members:
            if m.tensor in full:
                full[m.tensor][m.dim] += (stored.coupling.units - stored.kept) * m.width * len(m.starts)
    dims = {kernel.name: kernel.channel_dim for kernel in layout.kernels}
    for row in layout.rows:
        full[row.kernel][dims[row.kernel]] = row.full
    for name, shape in full.items():
        if tuple(state[name].shape) != tuple(shape):
            raise FormatError(
                f"{name}: the network of the factory has shape {tuple(state[name].shape)} here, the file {tuple(shape)}"
            )


def _spec(layout: Layout, network: nn.Module) -> NetworkSpec:
    """As much of a spec as surgery needs."""
    state = dict(network.named_parameters())
    kernels = []
    full = {r.kernel for r in layout.rows}
    for stored in layout.kernels:
        if stored.name not in state:
            raise FormatError(f"the factory builds another network than the file's: it has no tensor {stored.name!r}")
        module = network.get_submodule(stored.name.rpartition(".")[0])
        kernels.append(
            Kernel(
                name=stored.name,
                module=stored.name.rpartition(".")[0],
                kind=type(module).__name__,
                shape=tuple(state[stored.name].shape),
                channel_dim=stored.channel_dim,
                groups=1,
                macs=0,
                block=None,
                pruning=Pruning.ROWS if stored.name in full else Pruning.NONE,
            )
        )
    couplings = tuple(c.coupling for c in layout.couplings)
    return NetworkSpec(tuple(kernels), (), couplings, (), (), 1)
