"""Greedy by sensitivity: what pruning and mixed-precision papers do first. It knows no proxy, only the Fisher ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hirelc.config import SearchConfig
from hirelc.policy import Choice, Goal, Measurement, Policy
from hirelc.precision import precision_of, with_precision
from hirelc.search.bounds import alike
from hirelc.search.channels import keep_groups, with_keep
from hirelc.search.problem import Problem, Proposal
from hirelc.search.rivals.base import Choices, Rival

Kernels = tuple[Choice, ...]
TILTS: tuple[float, ...] = tuple(2.0 ** (power / 2) for power in range(-6, 7))
_OTHER_MOVES = 2  # how far, in tilts, a setting with channels lies from the same one without


@dataclass(frozen=True)
class Setting:
    """One way to order the moves.

    :param tilt: index in `TILTS`: how much further the least sensitive kernel goes down than the most sensitive one
    :param channels: whether channels go too, or bits alone
    """

    tilt: int
    channels: bool


@dataclass(frozen=True)
class _Place:
    """A kernel, and how insensitive it is: 1 for the least sensitive of all, 0 for the most."""

    block: int
    kernel: int
    ease: float


class GreedySearch(Rival):
    """All kernels start at their best and go down, the least sensitive first, until the file is within the limit.

    Next is the kernel that has gone the smallest part of its way, a way that is the longer the less sensitive the
    kernel is. How much longer is what the measurements decide: each proposal steps to the nearest new setting
    around the best one measured.
    """

    ORIGIN = "greedy"

    def __init__(self, problem: Problem, goal: Goal, config: SearchConfig) -> None:
        super().__init__(problem, goal, config)
        ranked = sorted(
            (kernel.sensitivity, block, index)
            for block, info in enumerate(problem.blocks)
            for index, kernel in enumerate(info.kernels)
        )
        last = max(len(ranked) - 1, 1)
        self._places = [_Place(block, kernel, 1 - rank / last) for rank, (_, block, kernel) in enumerate(ranked)]
        self._shares_keep = {
            (block, kernel): group
            for block, info in enumerate(problem.blocks)
            for group in keep_groups(info)
            for kernel in group
        }
        self._grid = [Setting(tilt, channels) for tilt in range(len(TILTS)) for channels in (False, True)]
        self._centre = Setting(TILTS.index(1.0), False)
        self._best: Measurement | None = None
        self._settings: dict[Policy, Setting] = {}

    def next(self, cycle: int, index: int) -> Proposal | None:
        """The nearest new setting that keeps the limits; where none does, what comes closest to them."""
        nearest = sorted(self._grid, key=self._distance)
        for setting in nearest:
            choices = self._descended(setting)
            proposal = self._proposal(choices, setting) if self.fits(choices) else None
            if proposal is not None:
                return proposal
        return self._proposal(self.fitted(self._descended(nearest[0])), nearest[0])

    def _proposal(self, choices: Choices, setting: Setting) -> Proposal | None:
        proposal = self.unseen(choices, tilt=TILTS[setting.tilt], channels=setting.channels)
        if proposal is not None:
            self._settings[proposal.policy] = setting
        return proposal

    def observe(self, proposal: Proposal, measurement: Measurement) -> Mapping[str, Any]:
        """Moves the centre of the settings to the best one measured."""
        if measurement.failure is None and (self._best is None or measurement.verdict.beats(self._best.verdict)):
            self._best, self._centre = measurement, self._settings[proposal.policy]
        return super().observe(proposal, measurement)

    def _distance(self, setting: Setting) -> tuple[int, int, bool]:
        apart = abs(setting.tilt - self._centre.tilt) + _OTHER_MOVES * (setting.channels != self._centre.channels)
        return apart, setting.tilt, setting.channels

    def _descended(self, setting: Setting) -> Choices:
        problem = self.problem
        now = [problem.canonical(b, alike(block, self.bounds.highest)) for b, block in enumerate(problem.blocks)]
        steps = dict.fromkeys(self._places, 0)
        open_places = set(self._places)
        while open_places and not self.fits(now):
            place = min(open_places, key=lambda p: (self._gone(p, steps[p] + 1, setting), p.block, p.kernel))
            down = self._below(now[place.block], place, setting.channels)
            if down is None:
                open_places.remove(place)
                continue
            now[place.block] = down
            steps[place] += 1
        return self._spent(now)

    @staticmethod
    def _gone(place: _Place, steps: int, setting: Setting) -> float:
        """The part of its way that a kernel has gone after some steps."""
        return steps / (1.0 + TILTS[setting.tilt] * place.ease)

    def _below(self, choices: Kernels, place: _Place, channels: bool) -> Kernels | None:
        """The kernel one rung down and, where channels may go, one level of them; None when neither is possible."""
        choice = choices[place.kernel]
        rungs = range(precision_of(choice) - 1, self.bounds.lowest - 1, -1)
        lower = next((c for c in (with_precision(choice, rung) for rung in rungs) if c != choice), choice)
        group = self._shares_keep.get((place.block, place.kernel), ())
        for keep in reversed(self.bounds.keeps) if channels and group else ():
            if keep < choice.keep_ratio:
                after = self._replaced(with_keep(choices, group, keep), place, replace(lower, keep_ratio=keep))
                if after[place.kernel].keep_ratio < choice.keep_ratio:
                    return after
        return None if lower == choice else self._replaced(choices, place, lower)

    def _replaced(self, choices: Kernels, place: _Place, choice: Choice) -> Kernels:
        return self.problem.canonical(place.block, (*choices[: place.kernel], choice, *choices[place.kernel + 1 :]))

    def _spent(self, now: list[Kernels]) -> Choices:
        """What is left of the limit, spent on rungs for the most sensitive kernels first."""
        for place in sorted(self._places, key=lambda p: (p.ease, p.block, p.kernel)):
            choice = now[place.block][place.kernel]
            rungs = range(precision_of(choice) + 1, self.bounds.highest + 1)
            up = next((c for c in (with_precision(choice, rung) for rung in rungs) if c != choice), None)
            if up is not None:
                better = [*now]
                better[place.block] = self._replaced(now[place.block], place, up)
                now = better if self.fits(better) else now
        return tuple(now)
