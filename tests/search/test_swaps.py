from __future__ import annotations

from fake import FakeProblem

from hirelc.config import SearchConfig
from hirelc.precision import precision_of
from hirelc.search.bounds import Bounds
from hirelc.search.fitting import reference
from hirelc.search.surrogate import distortion_of
from hirelc.search.swaps import swaps

BOUNDS = Bounds.of(SearchConfig())


def test_swaps_are_new_within_the_limit_and_the_best_come_first() -> None:
    problem = FakeProblem()
    limit = problem.original_bytes // 20
    start = reference(problem, limit, BOUNDS).choices
    found = swaps(problem, start, limit, BOUNDS, 3)
    assert len(found) == 3 and len({problem.policy(f) for f in (*found, start)}) == 4
    assert max(problem.file_bytes(f) for f in found) <= limit
    distortions = [distortion_of(problem, f) for f in found]
    assert distortions == sorted(distortions)
    for swapped in found:  # one kernel gives, another takes (and what shares its channels)
        rungs = [
            precision_of(after) - precision_of(before)
            for old, new in zip(start, swapped, strict=True)
            for before, after in zip(old, new, strict=True)
        ]
        assert min(rungs) <= 0 <= max(rungs) and 0 < sum(rung != 0 for rung in rungs) <= 2


def test_a_network_at_its_limits_has_no_swaps() -> None:
    problem = FakeProblem()
    smallest = reference(problem, 1, BOUNDS)
    assert swaps(problem, smallest.choices, problem.file_bytes(smallest.choices), BOUNDS, 3) == []
