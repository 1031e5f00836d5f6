from __future__ import annotations

import numpy as np
import pytest

from hirelc.search.improvement import expected_improvement


@pytest.mark.parametrize("mean", [-1.0, 0.3, 2.0])
@pytest.mark.parametrize("deviation", [0.1, 1.0])
def test_it_is_the_mean_of_what_a_normal_prediction_gains(mean: float, deviation: float) -> None:
    drawn = np.random.default_rng(0).normal(mean, deviation, 400_000)
    assert expected_improvement(0.5, mean, deviation) == pytest.approx(np.maximum(0.5 - drawn, 0).mean(), abs=3e-3)


def test_more_doubt_promises_more_and_none_only_what_is_predicted() -> None:
    gains = [expected_improvement(0.5, 1.0, deviation) for deviation in (0.0, 0.2, 0.5, 2.0)]
    assert gains[0] == 0.0 and gains == sorted(gains) and expected_improvement(0.5, 0.2, 0.0) == pytest.approx(0.3)


def test_before_anything_is_measured_the_lowest_prediction_promises_most() -> None:
    assert expected_improvement(np.inf, 0.2, 1.0) > expected_improvement(np.inf, 0.4, 3.0)
