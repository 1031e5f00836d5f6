from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hirelc.config import SearchConfig
from hirelc.precision import precision_of
from hirelc.search.bounds import Bounds, alike, random_choices
from hirelc.search.fitting import fit_block, fit_to_bytes, rate_curve, reference
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
