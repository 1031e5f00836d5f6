"""Mutated files are read or refused: no other exception, no hang, no memory beyond a bound."""

from __future__ import annotations

import random
import resource

import pytest
from files import Parts
from fuzzing import MUTATIONS, Net, mutant, run, seeds, small

from hirelc.artifact.container import read, write
from hirelc.artifact.load import load

MOST_MEMORY = 600 * 2**10  # kilobytes beyond what importing took: the most that a small file may claim, twice over


def fuzz(count: int, seed: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = run(count, seed)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY
    assert sum(outcomes.values()) == count
    # the mutations reach the parser and what lies behind it: some are harmless, most are not
    for kind in {name.split(":")[0] for name in outcomes}:
        assert outcomes[f"{kind}: refused"] > 0.5 * count / 40
    accepted = sum(n for name, n in outcomes.items() if not name.endswith("refused"))
    assert 0.02 * count < accepted < 0.5 * count


def test_the_seeds_are_valid() -> None:
    for data in seeds():
        assert write(read(data))[24:40] and Parts.of(data).pack() == data
    assert load(write(small()), Net).heads == 3


def test_mutants_are_reproducible_and_differ() -> None:
    first = [mutant(seeds()[0], random.Random(s)) for s in range(100)]
    assert first == [mutant(seeds()[0], random.Random(s)) for s in range(100)]
    assert len({data for _, data in first}) > 80
    assert {kind for kind, _ in first} == {m.__name__ for m in MUTATIONS} | {"bytes"}


def test_a_few_thousand_files() -> None:
    fuzz(2_000, 0)


@pytest.mark.slow
def test_two_hundred_thousand_files() -> None:
    fuzz(200_000, 2026)
