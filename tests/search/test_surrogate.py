from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from hirelc.config import SearchConfig
from hirelc.search.bounds import Bounds, random_choices
from hirelc.search.surrogate import (
    FEATURES,
    ColdStart,
    Surrogate,
    block_features,
    distortion_of,
    network_features,
    rank_correlation,
)
from search.fake import FakeProblem

BOUNDS = Bounds.of(SearchConfig())


def sampled(count: int, seed: int = 0) -> Iterator[tuple[np.ndarray, float]]:
    """Features and measured drops of random policies."""
    problem, generator = FakeProblem(), np.random.default_rng(seed)
    for _ in range(count):
        choices = tuple(
            problem.canonical(b, random_choices(block, BOUNDS, generator)) for b, block in enumerate(problem.blocks)
        )
        yield network_features(problem, choices), problem.measure(choices).drop_points


def test_features_of_a_block_are_those_of_the_network_if_all_were_treated_so() -> None:
    problem = FakeProblem()
    generator = np.random.default_rng(0)
    choices = tuple(random_choices(block, BOUNDS, generator) for block in problem.blocks)
    total = distortion_of(problem, choices)
    whole = network_features(problem, choices)
    assert whole.shape == (len(FEATURES),)
    for block, decided in enumerate(choices):
        share = problem.block_distortion(block, decided) / total
        assert block_features(problem, block, decided, share)[0] == pytest.approx(whole[0])


def test_cold_start_follows_the_measurements_and_stays_monotone() -> None:
    inputs = np.zeros((6, len(FEATURES)))
    inputs[:, 0] = np.linspace(-2, 0, 6)
    refitted = ColdStart().refitted(inputs, 5 * 10 ** (0.8 * inputs[:, 0]))
    assert refitted.kappa == pytest.approx(5, abs=0.5) and refitted.power == pytest.approx(0.8, abs=0.1)
    gains = ColdStart().refitted(inputs, np.full(6, -1.0))
    assert gains.of_distortion(1.0) > gains.of_distortion(0.1) and gains.of_distortion(0.01) < -0.5


def test_leave_one_out_beats_the_mean_of_the_samples() -> None:
    surrogate = Surrogate(0, 4)
    for features, drop in sampled(16):
        record = surrogate.observe(features, drop, surrogate.predict(features))
    assert record["leave_one_out_error"] < 0.5 * record["mean_error"]
    assert surrogate.in_use == (record["leave_one_out_error"] < record["cold_start_error"])
    unseen = list(sampled(20, seed=1))
    predicted, measured = [surrogate.predict(features) for features, _ in unseen], [drop for _, drop in unseen]
    assert np.mean(np.abs(np.subtract(predicted, measured))) < 0.1
    assert (rank_correlation(predicted, measured) or 0) > 0.9


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_noise_is_not_put_to_use(seed: int) -> None:
    surrogate, generator = Surrogate(0, 10), np.random.default_rng(seed)
    for features, _ in sampled(10):
        surrogate.observe(features, float(generator.normal()), None)
    assert not surrogate.in_use


def test_stays_cold_below_the_least_number_of_samples() -> None:
    surrogate = Surrogate(0, 8)
    for features, drop in sampled(7):
        assert not surrogate.observe(features, drop, None)["in_use"]
    assert surrogate.predict(features) == surrogate.cold_start.predict(features)


def test_training_leaves_global_randomness_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), float(torch.rand(1))

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)

    seed()
    expected = draw()
    seed()
    surrogate = Surrogate(0, 2)
    for features, drop in sampled(3):
        surrogate.observe(features, drop, None)
    assert draw() == expected


def test_rank_correlation_is_spearmans() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486833)
    assert rank_correlation([1, 2], [1, 2]) is None and rank_correlation([1, 1, 1], [1, 2, 3]) is None


def near(features: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return features + 0.02 * generator.normal(size=len(features))


def test_there_is_always_some_doubt() -> None:
    """Also before anything was measured; a larger drop is less certain."""
    cold = Surrogate(0, 4)
    (low, _), (high, _) = sorted(sampled(2), key=lambda one: one[0][0])
    assert cold.uncertain(high)[0] == cold.predict(high)
    assert cold.uncertain(high)[1] > cold.uncertain(low)[1] > 0.1
    learned = Surrogate(0, 4)
    for features, drop in sampled(16):
        learned.observe(features, drop, None)
    assert learned.in_use
    for features, _ in sampled(30, seed=2):
        mean, deviation = learned.uncertain(features)
        assert mean == learned.predict(features) and deviation > 0


@pytest.mark.parametrize("seed", range(3))
def test_doubt_shrinks_where_it_was_measured_and_grows_away_from_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    place, _ = next(iter(sampled(1, seed)))
    surrogate, doubts = Surrogate(0, 99), []
    for _ in range(6):
        doubts.append(surrogate.uncertain(place)[1])
        surrogate.observe(near(place, generator), surrogate.predict(place), None)
    assert doubts == sorted(doubts, reverse=True)
    # the distortion stays: else the drop itself, and with it the doubt, would change
    direction = np.concatenate([[0.0], generator.normal(size=len(FEATURES) - 1)])
    away = [surrogate.uncertain(place + far * direction)[1] for far in (0.0, 1.0, 3.0, 10.0)]
    assert away == sorted(away) and away[-1] > 1.5 * away[0]


def test_most_misses_are_within_the_doubt_and_not_all() -> None:
    surrogate, generator = Surrogate(0, 4), np.random.default_rng(0)
    noise = 0.8
    for features, drop in sampled(24):
        surrogate.observe(features, drop + noise * float(generator.normal()), None)
    ratios = [
        (drop + noise * generator.normal() - surrogate.uncertain(features)[0]) / surrogate.uncertain(features)[1]
        for features, drop in sampled(60, seed=5)
    ]
    assert 0.5 < np.mean(np.abs(ratios) < 1) < 0.9
