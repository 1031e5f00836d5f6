"""Which channels stay: importance per unit, and the counts that a keep_ratio stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from hirelc.errors import PolicyError
from hirelc.layout import kept_rows, kept_units
from hirelc.network.spec import Kernel, NetworkSpec, Pruning
from hirelc.network.surgery import Kept
from hirelc.policy import Choice, Policy


def canonical(spec: NetworkSpec, policy: Policy) -> Policy:
    """The policy as it takes effect: keep ratios of whole channels, equal over coupled kernels, 1 where nothing can go.

    :raises PolicyError: it names a kernel that the network lacks, or lacks one
    """
    missing = [k.name for k in spec.kernels if k.name not in policy]
    unknown = [name for name in policy if name not in spec.by_name]
    if missing or unknown:
        problem = f"no choice for {missing[0]!r}" if missing else f"a choice for the unknown kernel {unknown[0]!r}"
        raise PolicyError(f"the policy does not fit the network: {problem}")
    choices = {}
    for kernel in spec.kernels:
        choice = policy[kernel.name]
        ratio = effective_keep(spec, policy, kernel)
        choices[kernel.name] = replace(choice, keep_ratio=ratio)
    return Policy.of(choices)


def effective_keep(spec: NetworkSpec, policy: Mapping[str, Choice], kernel: Kernel) -> float:
    """The fraction of the kernel's channels that really stays."""
    if kernel.pruning is Pruning.COUPLED:
        coupling = spec.coupling_of[kernel.name]
        return kept_units(spec, policy, coupling) / spec.couplings[coupling].units
    if kernel.pruning is Pruning.ROWS:
        return kept_rows(kernel, policy[kernel.name].keep_ratio, spec.align) / kernel.channels
    return 1.0


def select(spec: NetworkSpec, policy: Mapping[str, Choice], importance: Mapping[str, Tensor]) -> Kept:
    """The most important units and rows, as many as the policy keeps. Ties go to the lower index.

    :param importance: per tensor name, a non-negative value per element (Fisher-weighted or squared magnitude)
    """
    units = {}
    for index, coupling in enumerate(spec.couplings):
        count = kept_units(spec, policy, index)
        if count == coupling.units:
            continue
        score = np.zeros(coupling.units)
        for member in coupling.members:
            if member.tensor in spec.by_name and member.tensor in importance:
                score += _per_unit(importance[member.tensor], member.dim, member.starts, member.width, coupling.units)
        units[index] = _largest(score, count)
    rows = {}
    for kernel in spec.kernels:
        if kernel.pruning is not Pruning.ROWS:
            continue
        count = kept_rows(kernel, policy[kernel.name].keep_ratio, spec.align)
        if count == kernel.channels:
            continue
        score = _along(importance[kernel.name], kernel.channel_dim)
        size, each = kernel.channels // kernel.groups, count // kernel.groups
        rows[kernel.name] = tuple(
            g * size + i for g in range(kernel.groups) for i in _largest(score[g * size : (g + 1) * size], each)
        )
    return Kept(units, rows)


def _along(importance: Tensor, dim: int) -> np.ndarray:
    """Sum over all other dimensions, float64, (size of dim,)."""
    others = [d for d in range(importance.ndim) if d != dim]
    summed = importance.double().sum(others) if others else importance.double()
    return np.asarray(summed.cpu().numpy(), dtype=np.float64)


def _per_unit(importance: Tensor, dim: int, starts: tuple[int, ...], width: int, units: int) -> np.ndarray:
    along = _along(importance, dim)
    total = np.zeros(units)
    for start in starts:
        total += along[start : start + units * width].reshape(units, width).sum(1)
    return total


def _largest(score: np.ndarray, count: int) -> tuple[int, ...]:
    order = np.argsort(-score, kind="stable")[:count]
    return tuple(int(i) for i in np.sort(order))
