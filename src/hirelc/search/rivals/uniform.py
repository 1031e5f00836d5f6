"""Every kernel alike: what most users try first."""

from __future__ import annotations

from hirelc.search.bounds import alike
from hirelc.search.fitting import excess
from hirelc.search.problem import Proposal
from hirelc.search.rivals.base import Choices, Rival
from hirelc.search.surrogate import distortion_of


class UniformSearch(Rival):
    """Every kernel alike (INT, learned steps): the grid of precision and keep_ratio, least distortion first."""

    ORIGIN = "uniform"

    def next(self, cycle: int, index: int) -> Proposal | None:
        ranked = sorted(self._grid(), key=lambda point: point[:2])
        candidates = (self.unseen(choices) for _, _, choices in ranked)
        return next((proposal for proposal in candidates if proposal is not None), None)

    def _grid(self) -> list[tuple[float, float, Choices]]:
        """(how far over the limits, distortion, choices) of every point."""
        problem, grid = self.problem, []
        for rung in range(self.bounds.lowest, self.bounds.highest + 1):
            for keep in self.bounds.keeps:
                choices = tuple(problem.canonical(b, alike(block, rung, keep)) for b, block in enumerate(problem.blocks))
                over = excess(problem, choices, self.target.bytes)
                grid.append((over, distortion_of(problem, choices), choices))
        return grid
