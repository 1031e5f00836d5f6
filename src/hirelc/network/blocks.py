"""Blocks are found from repetition: sibling modules of one type, each with kernels of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from torch import nn

from hirelc.errors import NetworkError
from hirelc.network.kernels import Candidate
from hirelc.network.spec import Block

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
COVERAGE = 0.8  # an inner repetition replaces an outer one when it holds this share of its weights
RUN = 3  # kernels per block where nothing repeats (plain chains such as VGG)


def find_blocks(network: nn.Module, kernels: Sequence[Candidate], pattern: str | None = None) -> list[Block]:
    """The blocks of a network, in its order.

    :param pattern: regular expression; modules whose whole path matches are the blocks
    :raises NetworkError: the pattern is malformed or matches no module with kernels
    """
    inside = [k for k in kernels if k.kind != "Embedding"]
    if pattern is not None:
        blocks = _own(_matching(network, pattern), inside)
        if not blocks:
            raise NetworkError(f"--blocks {pattern!r} matches no module with kernels; `hirelc inspect` lists the modules")
        return blocks
    # modules of a type of their own first; then plain Sequentials in a list
    for siblings_only, containers in ((True, CONTAINERS), (False, CONTAINERS), (True, CONTAINERS[1:])):
        blocks = _own(_repeated(network, inside, siblings_only, containers), inside)
        if blocks:
            return blocks
    return _own(_called_again(network, inside), inside) or _runs(inside)


def _matching(network: nn.Module, pattern: str) -> list[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise NetworkError(f"--blocks {pattern!r} is no regular expression: {error}") from None
    names = [name for name, _ in network.named_modules() if name and expression.fullmatch(name)]
    return [n for n in names if not any(n.startswith(other + ".") for other in names)]


def _repeated(
    network: nn.Module, kernels: Sequence[Candidate], siblings_only: bool, containers: tuple[type[nn.Module], ...]
) -> list[str]:
    """Paths of the repeated modules that cover most weights, as deep as the cover allows."""
    by_type: dict[type, list[str]] = {}
    for path, module in network.named_modules():
        if not path or isinstance(module, containers):
            continue
        if siblings_only and not isinstance(network.get_submodule(path.rpartition(".")[0]), CONTAINERS):
            continue
        if sum(k.module.startswith(path + ".") for k in kernels) >= 2:
            by_type.setdefault(type(module), []).append(path)
    sets = [paths for paths in by_type.values() if len(paths) >= 2]
    chosen: list[str] = []
    while sets:
        best = max(sets, key=lambda paths: (_weights(paths, kernels), -sum(p.count(".") for p in paths)))
        while deeper := [s for s in sets if _covers(s, best, kernels)]:
            best = max(deeper, key=lambda paths: _weights(paths, kernels))
        chosen += best
        sets = [s for s in sets if not any(_within(p, chosen) or p in chosen or _within_any(chosen, p) for p in s)]
    return chosen


def _called_again(network: nn.Module, kernels: Sequence[Candidate]) -> list[str]:
    """The outermost modules that run more than once in a pass: one layer that is used as many, as in ALBERT."""
    found: list[str] = []
    for path, module in network.named_modules():
        calls = [k.calls for k in kernels if k.module.startswith(path + ".")]
        if path and not isinstance(module, CONTAINERS) and len(calls) >= 2 and min(calls) >= 2 and not _within(path, found):
            found.append(path)
    return found


def _covers(inner: Sequence[str], outer: Sequence[str], kernels: Sequence[Candidate]) -> bool:
    return all(_within(p, outer) for p in inner) and _weights(inner, kernels) >= COVERAGE * _weights(outer, kernels)


def _within(path: str, outer: Sequence[str]) -> bool:
    return any(path.startswith(other + ".") for other in outer)


def _within_any(paths: Sequence[str], outer: str) -> bool:
    return any(path.startswith(outer + ".") for path in paths)


def _weights(paths: Sequence[str], kernels: Sequence[Candidate]) -> int:
    return sum(math.prod(k.shape) for k in kernels if _within(k.module, paths))


def _own(paths: Sequence[str], kernels: Sequence[Candidate]) -> list[Block]:
    owned = {p: tuple(k.name for k in kernels if k.module == p or k.module.startswith(p + ".")) for p in paths}
    order = {k.name: i for i, k in enumerate(kernels)}
    blocks = [Block(path, names) for path, names in owned.items() if names]
    return sorted(blocks, key=lambda block: order[block.kernels[0]])


def _runs(kernels: Sequence[Candidate]) -> list[Block]:
    """Nothing repeats: neighbouring kernels share a block; the first and the last stay in the frame."""
    middle = list(kernels[1:-1]) if len(kernels) > 3 else list(kernels)
    return [
        Block(f"{run[0].module} .. {run[-1].module}" if len(run) > 1 else run[0].module, tuple(k.name for k in run))
        for run in (middle[i : i + RUN] for i in range(0, len(middle), RUN))
    ]
