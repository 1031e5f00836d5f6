from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hirelc.config import SearchConfig
from hirelc.errors import PolicyError
from hirelc.policy import Choice, Limits
from hirelc.precision import precision_of, with_precision
from hirelc.search.bounds import Bounds, alike, random_choices
from hirelc.search.fitting import Fit, excess, fit_block, fit_to_bytes, rate_curve, reference
from hirelc.search.surrogate import distortion_of
from search.fake import FakeProblem

BOUNDS = Bounds.of(SearchConfig())
PROBLEM = FakeProblem()
SMALLEST = PROBLEM.file_bytes([PROBLEM.canonical(b, alike(block, 0, 0.5)) for b, block in enumerate(PROBLEM.blocks)])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.floats(8, 40))
def test_fits_any_start_into_the_limit_and_spends_it(seed: int, ratio: float) -> None:
    generator = np.random.default_rng(seed)
    start = [random_choices(block, BOUNDS, generator) for block in PROBLEM.blocks]
    limit = int(PROBLEM.original_bytes / ratio)
    fit = fit_to_bytes(PROBLEM, start, limit, [BOUNDS] * 4)
    assert fit.fits and fit.size_bytes == PROBLEM.file_bytes(fit.choices) <= limit
    assert fit.size_bytes > 0.95 * limit
    kinds = [[(c.number_type, c.granularity) for c in block] for block in start]
    assert [[(c.number_type, c.granularity) for c in block] for block in fit.choices] == kinds


def test_what_fits_exactly_is_left_alone() -> None:
    once = reference(PROBLEM, PROBLEM.original_bytes // 20, BOUNDS)
    again = fit_to_bytes(PROBLEM, once.choices, once.size_bytes, [BOUNDS] * 4)
    assert again.choices == once.choices and again.changed == 0


def test_an_infeasible_limit_yields_the_smallest_and_says_so() -> None:
    fit = reference(PROBLEM, SMALLEST - 8, BOUNDS)
    assert not fit.fits and fit.size_bytes == SMALLEST
    assert reference(PROBLEM, SMALLEST, BOUNDS).fits


def test_reference_distorts_less_than_what_is_uniform() -> None:
    uniform = [PROBLEM.canonical(b, alike(block, 12)) for b, block in enumerate(PROBLEM.blocks)]
    fit = reference(PROBLEM, PROBLEM.file_bytes(uniform), BOUNDS)
    assert distortion_of(PROBLEM, fit.choices) <= distortion_of(PROBLEM, uniform)


@pytest.mark.parametrize("ratio", [20, 40])
def test_the_goals_are_reachable(ratio: int) -> None:
    assert reference(PROBLEM, PROBLEM.original_bytes // ratio, BOUNDS).fits


def test_a_block_is_fitted_to_its_grant_within_its_bounds() -> None:
    bounds = Bounds(8, 20, 1.0, 15)
    grant = int(0.12 * 4 * PROBLEM.blocks[2].weights)
    fit = fit_block(PROBLEM, 2, alike(PROBLEM.blocks[2], 20), grant, bounds)
    assert fit.fits and fit.size_bytes == PROBLEM.block_bytes(2, fit.choices[0]) <= grant
    assert all(choice.keep_ratio == 1 and precision_of(choice) >= 8 for choice in fit.choices[0])


def test_rate_curves_fall() -> None:
    curve = rate_curve(PROBLEM, 1, BOUNDS)
    distortions = [curve.distortion(fraction) for fraction in (0.02, 0.05, 0.1, 0.2)]
    assert distortions == sorted(distortions, reverse=True)
    assert distortions[0] > 10 * distortions[-1]
    assert curve.reaches(0.05) and not curve.reaches(0.001)


# -- several limits at once ----------------------------------------------------------------------------------

FULL_MACS = PROBLEM.macs([alike(block, 20) for block in PROBLEM.blocks])
FULL_MS = PROBLEM.latency_ms([alike(block, 20) for block in PROBLEM.blocks])


def limited(macs: float | None = None, latency_ms: float | None = None) -> FakeProblem:
    problem = copy.copy(PROBLEM)  # with what that one has memoised
    problem.limits = Limits(macs=macs, latency_ms=latency_ms)
    return problem


def smallest_of(problem: FakeProblem, start: list[tuple[Choice, ...]]) -> list[tuple[Choice, ...]]:
    """The lowest precision and the fewest channels of the formats given."""
    return [
        problem.canonical(b, tuple(with_precision(Choice(8, 0.5, c.number_type, c.granularity), 0) for c in choices))
        for b, choices in enumerate(start)
    ]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.floats(5, 60), st.none() | st.floats(0.2, 1.1), st.none() | st.floats(0.2, 1.1))
def test_fits_meet_all_limits_whenever_the_smallest_choices_do(
    seed: int, ratio: float, macs: float | None, latency: float | None
) -> None:
    problem = limited(macs and macs * FULL_MACS, latency and latency * FULL_MS)
    generator = np.random.default_rng(seed)
    start = [random_choices(block, BOUNDS, generator) for block in problem.blocks]
    limit = int(problem.original_bytes / ratio)
    fit = fit_to_bytes(problem, start, limit, [BOUNDS] * 4)
    feasible = excess(problem, smallest_of(problem, start), limit) == 0
    over = excess(problem, fit.choices, limit)
    assert fit.fits == feasible == (over == 0)
    assert (fit.size_bytes, fit.macs) == (problem.file_bytes(fit.choices), problem.macs(fit.choices))
    assert over <= excess(problem, smallest_of(problem, start), limit) + 1e-9


def kept(fit: Fit) -> float:
    return float(np.mean([choice.keep_ratio for decided in fit.choices for choice in decided]))


def test_a_limit_on_macs_takes_channels_and_leaves_bytes_to_precision() -> None:
    limit = PROBLEM.original_bytes // 16
    free, bound = reference(PROBLEM, limit, BOUNDS), reference(limited(macs=FULL_MACS / 2), limit, BOUNDS)
    assert bound.fits and bound.macs <= FULL_MACS / 2 < free.macs
    assert bound.macs > 0.95 * FULL_MACS / 2 and bound.size_bytes > 0.95 * limit  # both are used up
    assert kept(bound) < kept(free)

    def rungs(fit: Fit) -> float:
        return float(np.mean([precision_of(choice) for decided in fit.choices for choice in decided]))

    assert rungs(bound) > rungs(free)  # what the channels took fewer bytes for


def test_channels_go_where_they_cost_least_of_what_is_exceeded() -> None:
    """The fake's early blocks take most multiply-accumulates: a limit on these prunes them first."""
    limit = PROBLEM.original_bytes
    fit = reference(limited(macs=0.8 * FULL_MACS), limit, BOUNDS)
    parts = [PROBLEM.block_macs(b, c) / PROBLEM.block_macs(b, alike(PROBLEM.blocks[b], 20)) for b, c in enumerate(fit.choices)]
    assert fit.fits and parts[1] < parts[-1]


def test_a_limit_on_macs_that_channels_cannot_meet_still_uses_up_the_bytes() -> None:
    limit = PROBLEM.original_bytes // 20
    fit = reference(limited(macs=1000), limit, BOUNDS)
    fewest = PROBLEM.macs([PROBLEM.canonical(b, alike(block, 20, 0.5)) for b, block in enumerate(PROBLEM.blocks)])
    assert not fit.fits and fit.macs == fewest
    assert 0.9 * limit < fit.size_bytes <= limit


def test_what_fits_several_limits_is_left_alone() -> None:
    problem = limited(FULL_MACS * 0.6, FULL_MS * 0.8)
    once = reference(problem, problem.original_bytes // 20, BOUNDS)
    assert once.fits and once.latency_ms == problem.latency_ms(once.choices)
    again = fit_to_bytes(problem, once.choices, once.size_bytes, [BOUNDS] * 4)
    assert again.choices == once.choices


class Coupled(FakeProblem):
    """The last two kernels of each block lose the same channels: the larger wish counts, as with q, k and v."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits=limits)
        self.blocks = tuple(
            replace(block, kernels=(*block.kernels[:-2], *(replace(k, coupling=7, prunable=True) for k in block.kernels[-2:])))
            for block in self.blocks
        )

    def _canonical(self, block: int, choices: Sequence[Choice]) -> tuple[Choice, ...]:
        most = max(choice.keep_ratio for choice in choices[-2:])
        wanted = (*choices[:-2], *(replace(choice, keep_ratio=most) for choice in choices[-2:]))
        return super()._canonical(block, wanted)


def test_kernels_that_share_channels_lose_them_together() -> None:
    problem = Coupled(Limits(macs=FULL_MACS / 2))
    fit = reference(problem, problem.original_bytes, BOUNDS)
    assert fit.fits and kept(fit) < 1
    assert all(decided[-1].keep_ratio == decided[-2].keep_ratio for decided in fit.choices)


def test_a_latency_that_was_not_measured_cannot_be_limited() -> None:
    problem = limited(latency_ms=1.0)
    problem.latency_ms = lambda choices: None  # type: ignore[method-assign]
    with pytest.raises(PolicyError, match="not measured"):
        reference(problem, problem.original_bytes, BOUNDS)
