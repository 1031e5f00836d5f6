"""What every search strategy promises. A subclass provides the fixture `make`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hirelc.policy import Goal, Limits, Policy
from hirelc.search.bounds import alike
from hirelc.search.problem import INCUMBENT, Proposal, SearchStrategy
from search.fake import FakeProblem

CYCLES = 3
Make = Callable[[FakeProblem, Goal, int], SearchStrategy]


def drive(problem: FakeProblem, strategy: SearchStrategy) -> list[Proposal]:
    """All proposals of a search, each measured and told of."""
    proposals = []
    for cycle in range(CYCLES):
        for proposal in strategy.propose(cycle):
            entry = strategy.observe(proposal, problem.measure(proposal.choices))
            assert {"predicted_drop", "measured_drop"} <= set(entry)
            proposals.append(proposal)
    return proposals


class SearchStrategyContract:
    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError

    @pytest.mark.parametrize("ratio", [12, 20, 40])
    def test_proposals_are_distinct_and_within_the_limit(self, make: Make, ratio: int) -> None:
        problem = FakeProblem()
        proposals = drive(problem, make(problem, Goal(ratio=ratio), 0))
        policies = [proposal.policy for proposal in proposals if proposal.origin != INCUMBENT]
        assert len(set(policies)) == len(policies) >= CYCLES
        sizes = [problem.file_bytes(proposal.choices) for proposal in proposals]
        # uniform search walks its grid by distance from the limit, so only its first is sure to be within
        within = sizes[:1] if proposals[0].origin == "uniform" else sizes
        assert max(within) <= problem.original_bytes / ratio

    def test_proposals_keep_all_limits_of_a_goal(self, make: Make) -> None:
        whole = FakeProblem(3)
        full = whole.macs([alike(block, 20) for block in whole.blocks])
        problem = FakeProblem(3, limits=Limits(macs=0.6 * full, latency_ms=0.19))  # which is a little less than those MACs take
        goal = Goal(ratio=20, max_macs=0.6 * full, max_latency_ms=0.19)
        proposals = drive(problem, make(problem, goal, 0))
        within = proposals[:1] if proposals[0].origin == "uniform" else proposals
        for proposal in within:
            measured = problem.measure(proposal.choices)
            limits = goal.limits(problem.original_bytes)
            assert not limits.excess(measured.size_bytes, measured.macs, measured.latency_ms), proposal.origin

    def test_policy_and_choices_agree_and_are_canonical(self, make: Make) -> None:
        problem = FakeProblem()
        for proposal in make(problem, Goal(ratio=16), 0).propose(0):
            assert isinstance(proposal.policy, Policy)
            assert proposal.policy == problem.policy(proposal.choices)
            assert [problem.canonical(b, c) for b, c in enumerate(proposal.choices)] == list(proposal.choices)

    def test_same_seed_same_proposals(self, make: Make) -> None:
        first, second = (
            [p.policy for p in drive(problem, make(problem, Goal(ratio=20), 7))] for problem in (FakeProblem(2), FakeProblem(2))
        )
        assert first == second

    def test_a_drop_goal_moves_the_size(self, make: Make) -> None:
        """Without a byte limit the search sets its own target, and changes it after a measurement."""
        problem = FakeProblem(2)
        strategy = make(problem, Goal(max_drop=50.0), 0)
        first = strategy.propose(0)
        for proposal in first:
            strategy.observe(proposal, problem.measure(proposal.choices))
        second = strategy.propose(1)[0]
        assert problem.file_bytes(second.choices) < min(problem.file_bytes(proposal.choices) for proposal in first)

    def test_an_impossible_limit_yields_the_smallest(self, make: Make) -> None:
        problem = FakeProblem(2)
        proposals = make(problem, Goal(ratio=1000), 0).propose(0)
        assert proposals
        assert min(problem.file_bytes(p.choices) for p in proposals) < problem.original_bytes / 30
