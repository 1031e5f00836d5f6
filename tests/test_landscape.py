"""What the search is told of a real network, against the cost model of whole policies."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hirelc import cost
from hirelc.config import SearchConfig
from hirelc.landscape import Landscape
from hirelc.measure.latency import LatencyTable
from hirelc.network.spec import NetworkSpec
from hirelc.network.trace import trace
from hirelc.policy import Choice, Limits
from hirelc.precision import nominal_bits
from hirelc.search.bounds import Bounds, alike, random_choices
from hirelc.search.fitting import excess, reference
from zoo import BY_NAME, build

NETS = ("resnet-basic", "mobilenet", "vit-fused", "tied", "torch-encoder")
BOUNDS = Bounds.of(SearchConfig())


class Proxy:
    """Rounding and pruning cost what their share of the weights is."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec

    def distortion(self, names: Any, choices: Any) -> float:
        weights = [self.spec.by_name[name].weights for name in names]
        return sum(w * (4.0 ** -nominal_bits(c) + (1 - c.keep_ratio) ** 2) for w, c in zip(weights, choices, strict=True)) / 1e4


@cache
def traced(name: str) -> NetworkSpec:
    return trace(build(BY_NAME[name]), BY_NAME[name].inputs())


def landscape(name: str, **limits: float) -> Landscape:
    spec = traced(name)
    sizes = cost.SizeModel(spec, lambda _name, choice: max(nominal_bits(choice), 0.1), 1000.3)
    sensitivity: Any = SimpleNamespace(kernels={k.name: 0.5 for k in spec.kernels}, blocks=[0.5] * len(spec.blocks))
    proxy: Any = Proxy(spec)
    table = LatencyTable.of(
        spec, lambda kernel, shape: 1e-3 * float(np.prod(shape)) ** 0.5, (50.0, None), 0.5, "a formula", 1, 1
    )
    frame = {kernel.name: Choice() for kernel in spec.frame}
    return Landscape(sizes, sensitivity, proxy, frame, Limits(**limits), table)


@pytest.mark.parametrize("name", NETS)
def test_blocks_add_up_to_what_the_whole_policy_costs(name: str) -> None:
    problem, generator = landscape(name), np.random.default_rng(0)
    for _ in range(3):
        choices = [problem.canonical(b, random_choices(info, BOUNDS, generator)) for b, info in enumerate(problem.blocks)]
        policy = problem.policy(choices)
        assert problem.file_bytes(choices) == problem.sizes.file_bytes(policy)
        assert problem.macs(choices) == cost.macs(problem.spec, policy)
        assert problem.latency is not None
        assert problem.latency_ms(choices) == pytest.approx(problem.latency.predict(problem.spec, policy))


@pytest.mark.parametrize("name", NETS)
def test_a_policy_gives_back_the_choices_that_it_was_made_of(name: str) -> None:
    problem, generator = landscape(name), np.random.default_rng(1)
    wanted = tuple(problem.canonical(b, random_choices(info, BOUNDS, generator)) for b, info in enumerate(problem.blocks))
    policy = problem.policy(wanted)
    assert problem.choices(policy) == wanted
    assert problem.policy(problem.choices(policy)) == policy


def test_most_networks_add_up() -> None:
    """Else each step of a fit looks at the whole network, which is a hundred times as slow."""
    assert [name for name in NETS if not landscape(name)._additive] == []


@pytest.mark.parametrize("name", ["resnet-basic", "vit-fused"])
def test_fits_keep_all_limits_on_real_structures(name: str) -> None:
    full = landscape(name)
    plain = [tuple(Choice() for _ in info.kernels) for info in full.blocks]
    least = [full.canonical(b, alike(info, 0, 0.5)) for b, info in enumerate(full.blocks)]
    macs = (full.macs(plain) + full.macs(least)) / 2
    milliseconds = ((full.latency_ms(plain) or 0) + (full.latency_ms(least) or 0)) / 2
    problem = landscape(name, macs=macs, latency_ms=milliseconds)
    limit = full.file_bytes(plain) // 2
    fit = reference(problem, limit, BOUNDS)
    assert fit.fits and excess(problem, fit.choices, limit) == 0
    assert cost.macs(problem.spec, problem.policy(fit.choices)) == fit.macs <= macs
    assert any(choice.keep_ratio < 1 for decided in fit.choices for choice in decided)
