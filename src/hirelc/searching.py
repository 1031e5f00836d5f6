"""The search loop: propose, measure, archive, journal."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from hirelc.batches import Batches
from hirelc.candidates import Bench, Candidate
from hirelc.checkpoints import save_candidate
from hirelc.config import Config, SearchConfig
from hirelc.errors import RunError
from hirelc.landscape import Landscape
from hirelc.policy import Goal, Measurement, Policy
from hirelc.precision import precision_of, precision_words
from hirelc.preparing import check_enough, fisher_samples
from hirelc.progress import Follower
from hirelc.replaying import Recorded, Searched
from hirelc.run import Run
from hirelc.search.archive import FEE, LATER, Archive, Entry
from hirelc.search.baselines import make_search
from hirelc.search.bounds import Bounds
from hirelc.search.budgets import ByteTarget
from hirelc.search.likely import Scale
from hirelc.search.problem import INCUMBENT, Proposal, SearchStrategy
from hirelc.search.swaps import swaps

LEAST_MEASURED = 2  # policies, whatever the time: the reference and a vote
HOPELESS = 0.5  # of the length that a policy is expected to have
BEHIND = 5.0  # points behind the best policy so far, without training: more than a short one would make up for
SWAPS = 4  # tried on the picked policy
GENTLY = 0.2  # on the learning rate of short measurements: a few steps at the full one only ruin trained weights
ONWARD = 0.8  # on the learning rate, each time that a policy is trained on once more: later there is more to lose
LONG = 250  # steps of a training from which that is so: shorter ones have too far to go
SHORT = 0.1  # of a full measurement's training
TELLING = 300  # steps of a short measurement: fewer tell less than none, for their end is more a matter of chance
CLIMBING = 2  # short measurements of a cycle: the best policy so far, and one that may be better


def images_per_measurement(config: Config, train: Batches) -> int:
    """How many training samples each fine-tune of the search may see.

    :raises RunError: less than a batch
    :raises DataError: too few samples to calibrate on, where nothing is trained
    """
    if config.calibrate_only:
        check_enough(config, train)
        return 0
    measured = full_measurements(config.search)
    each = int((config.train.searched - fisher_samples(config, train)) / measured)
    if each < config.train.batch_size:
        raise RunError(
            f"a training budget of {config.train.images} images leaves {max(each, 0)} for each of {measured:g} measurements, "
            f"less than one batch of {config.train.batch_size}: raise --images or lower --cycles"
        )
    return each


def full_measurements(settings: SearchConfig) -> float:
    """What the measurements of a search cost together, in units of one with full training."""
    # the first cycle measures what the search begins with as well
    return 1 + settings.cycles + racing(settings) * CLIMBING * SHORT


def racing(settings: SearchConfig) -> int:
    """In how many cycles several policies compete."""
    return settings.cycles if settings.contenders > 1 else 0


def improves(settings: SearchConfig) -> bool:
    """Whether the picked policy is tried with swaps before its final fine-tune."""
    return settings.contenders > 1 and settings.without != "swaps"


def search(run: Run, bench: Bench, landscape: Landscape) -> Searched:
    """Cycles of proposals and measurements, and the pick for the goal. What the journal holds is recalled, not repeated.

    :raises RunError: every candidate failed, or a resumed search comes to other proposals than it did
    """
    begun = time.monotonic()
    settings = run.config.search
    follower = Follower()
    with run.say.stage("preparing the search"):
        strategy = make_search(landscape, run.goal, settings, run.config.seed, follower)
    loop = _Loop(run, bench, landscape, strategy)
    for cycle in range(settings.cycles):
        if loop.late(cycle):
            break
        with run.say.stage(f"cycle {cycle + 1}/{settings.cycles}: agents", 1.0) as stage:
            follower.follow(stage)
            proposals = strategy.propose(cycle)
        for proposal in proposals:
            if not proposal.trial and not loop.late(cycle):
                loop.measure(cycle, proposal, loop.images)
        if not loop.late(cycle):
            loop.climb(cycle, [proposal for proposal in proposals if proposal.trial])
    if improves(settings) and loop.archive.entries and not loop.late(settings.cycles):
        loop.improve(settings.cycles)
    if not any(m.failure is None and m.fidelity == "full" for m in loop.measurements):
        raise RunError(
            "every candidate failed; the first reason: "
            + next((m.failure for m in loop.measurements if m.failure), "the search proposed nothing")
        )
    return loop.ended(time.monotonic() - begun)


class _Loop:
    """Measures what a strategy proposes, tells it, archives and journals."""

    def __init__(self, run: Run, bench: Bench, landscape: Landscape, strategy: SearchStrategy) -> None:
        self.run, self.bench, self.landscape, self.strategy = run, bench, landscape, strategy
        self.archive: Archive[Candidate] = Archive()
        self.measurements: list[Measurement] = []
        settings = run.config.search
        planned, plain = full_measurements(settings), 1.0 + settings.cycles
        self._images = images_per_measurement(run.config, run.train) * planned
        self.tells = SHORT * self._images >= plain * TELLING * run.config.train.batch_size  # what a short measurement says
        self._planned = planned if self.tells else plain  # measurements to come, in units of one with full training
        self.recorded, self.recalled = Recorded(run), list[int]()
        self._late = False

    def late(self, cycle: int) -> bool:
        """Whether the time left is needed for the final fine-tune: what is not measured yet is skipped then."""
        pace = self.run.pace
        if self.recorded.holds(len(self.measurements)):
            return False
        measured = sum(m.fidelity == "full" for m in self.measurements)
        if pace is None or measured < LEAST_MEASURED or pace.fits(self.images):
            return False
        if not self._late:
            self._late = True
            self.run.directory.journal_once("time_skip", cycle=cycle, left=pace.budget.left, measured=len(self.measurements))
            self.run.say.line(f"cycle {cycle + 1}: no time for more candidates, {pace.budget.left:.0f} s are left")
        return True

    def ended(self, seconds: float) -> Searched:
        """Picks and journals.

        :param seconds: of this process; what was recalled is added
        """
        seconds += sum(self.measurements[i].seconds for i in self.recalled)
        pick = self._picked()
        index = next(i for i, measurement in enumerate(self.measurements) if measurement is pick.measurement)
        self.run.directory.journal_once(
            "pick", policy=pick.policy.digest, measurement=pick.measurement, candidate=index, search_seconds=seconds
        )
        return Searched(pick.payload, self.measurements, seconds)

    def _picked(self) -> Entry[Candidate]:
        later = 0.0 if self.bench.exact else LATER
        return self.archive.pick(self.run.goal, self.run.spec.original_bytes, later).entry

    def improve(self, cycle: int) -> None:
        """The best swaps of precision in the picked policy, on its weights: one that is better without any training of its own
        is picked instead, for what comes of them is archived like all else."""
        pick, settings = self._picked(), self.run.config.search
        choices = self.landscape.choices(pick.policy)
        limit = ByteTarget(self.landscape, self.run.goal).bytes
        bounds = Bounds.of(settings)
        allowed = max(limit, self.landscape.file_bytes(choices))
        found = swaps(self.landscape, choices, allowed, bounds, SWAPS)
        self.run.say.line(f"after the cycles: {len(found)} neighbours of the picked policy, at equal bytes")
        self.bench.go_on_from(pick.payload)
        for swapped in found:
            self.measure(cycle, Proposal(self.landscape.policy(swapped), swapped, "swap", None, trial=True), 0, "calibrated")

    @property
    def images(self) -> int:
        """Training samples of a full measurement: an equal part of those left, which trials that were spared add to."""
        seen = sum(measurement.images_seen for measurement in self.measurements)
        return int((self._images - seen) / max(SHORT, self._planned))

    @property
    def _long(self) -> bool:
        return self.images >= LONG * self.run.config.train.batch_size

    @property
    def _short(self) -> int:
        """Training samples of a short measurement."""
        return max(self.run.config.train.batch_size, round(SHORT * self.images))

    def climb(self, cycle: int, trials: list[Proposal]) -> None:
        """Successive halving (Jamieson & Talwalkar 2016): calibrated, shortly trained, and the best one in full.

        The best policy so far competes. It needs no calibration to be known, and is trained on in full where no other is
        better: training is not spent on what would then be thrown away. Those that are far behind it without training are not
        trained. Where a short training would say nothing, those are that are as good as the best without any. All go on from
        the best weights so far.
        """
        incumbent = next((proposal for proposal in trials if proposal.origin == INCUMBENT), None)
        if incumbent is None:
            return
        rivals = [proposal for proposal in trials if proposal is not incumbent]
        if self.images == 0:  # nothing is trained: one measurement says all, and the best so far has had it
            for proposal in rivals:
                self.measure(cycle, proposal, 0)
            return
        best = self._best_known(incumbent.policy)
        if best is not None:
            self.bench.go_on_from(best.payload)
        standing = [*self._near(cycle, rivals, best)[: CLIMBING - 1], incumbent]
        rate = ONWARD ** len(self._trainings("full", of=incumbent.policy)) if self._long else 1.0
        if len(standing) > 1 and self.tells:
            standing = [proposal for _, proposal in self._race(cycle, standing, self._short, "short", GENTLY)]
        if self.tells:
            self._planned -= CLIMBING * SHORT
        for proposal in standing[:1]:
            known = self._best_known(proposal.policy)
            start = None if known is None else known.payload
            self.measure(cycle, proposal, self.images, start=start, rate_factor=rate)

    def _near(self, cycle: int, rivals: list[Proposal], best: Entry[Candidate] | None) -> list[Proposal]:
        """Who is not too far behind the best policy so far without training, the best first."""
        found = self._race(cycle, rivals, 0, "calibrated")
        behind = BEHIND if self.tells else 0.0
        bound = math.inf if best is None else self._rating(self._scale, best.measurement) + behind
        return [proposal for rating, proposal in found if rating <= bound]

    def _best_known(self, policy: Policy) -> Entry[Candidate] | None:
        """The best of the states that a policy was trained to; None where it was not."""
        return self._best(self._trainings("short", "full", of=policy))

    def _best(self, entries: list[Entry[Candidate]]) -> Entry[Candidate] | None:
        scale = self._scale
        return min(entries, key=lambda entry: self._rating(scale, entry.measurement), default=None)

    def _trainings(self, *fidelities: str, of: Policy | None = None) -> list[Entry[Candidate]]:
        entries = [e for e in self.archive.entries if of in (None, e.policy) and e.measurement.fidelity in fidelities]
        return [entry for entry in entries if entry.payload.trained is not None]

    def _race(
        self, cycle: int, proposals: list[Proposal], images: int, fidelity: str, rate_factor: float = 1.0
    ) -> list[tuple[float, Proposal]]:
        """Those that did not fail with their ratings, the best first."""
        found: list[tuple[Measurement, Proposal]] = []
        for proposal in proposals:
            measurement, candidate = self.measure(cycle, proposal, images, fidelity, rate_factor=rate_factor)
            if candidate is not None:
                found.append((measurement, proposal))
        scale = self._scale
        rated = [(self._rating(scale, measurement), proposal) for measurement, proposal in found]
        return sorted(rated, key=lambda pair: pair[0])

    @property
    def _scale(self) -> Scale:
        """As all that was measured says it."""
        return Scale.of(self.measurements)

    def _rating(self, scale: Scale, measurement: Measurement) -> float:
        """Likely drop in points, and what it will cost to make a file that is too long shorter."""
        limit = self.run.goal.byte_limit(self.run.spec.original_bytes)
        over = 0.0 if limit is None else max(0.0, measurement.size_bytes / limit - 1)
        return scale.likely(measurement) + FEE * over

    def measure(
        self,
        cycle: int,
        proposal: Proposal,
        images: int,
        fidelity: str = "full",
        start: Candidate | None = None,
        rate_factor: float = 1.0,
    ) -> tuple[Measurement, Candidate | None]:
        expected = self.landscape.file_bytes(proposal.choices)
        limit = self.run.goal.byte_limit(self.run.spec.original_bytes)
        # a goal far below what the policy can reach would only ruin the candidate
        target = expected if limit is None else max(limit, round(HOPELESS * expected))
        index = len(self.measurements)
        with self.run.say.stage(f"measuring candidate {index + 1}", images or None) as stage:
            recalled = self.recorded.recall(self.bench, index, proposal.policy, target)
            measurement, candidate = recalled or self.bench.measure(
                proposal.policy,
                target,
                images,
                f"candidate-{index}",
                stage.advance,
                fidelity=fidelity,
                start=start,
                rate_factor=rate_factor,
            )
        if recalled is not None:
            self.recalled.append(index)
        elif candidate is not None:
            save_candidate(self.run.directory, index, candidate)
        if self.landscape.latency is not None:
            measurement = replace(measurement, latency_ms=self.landscape.latency_ms(proposal.choices))
        if self.run.pace is not None:
            self.run.pace.observe(images, measurement.seconds)
        scale = Scale.of([*self.measurements, measurement])
        measurement = replace(measurement, likely_drop=None if measurement.failure else scale.likely(measurement))
        self.measurements.append(measurement)
        self._planned -= fidelity == "full"
        learned = self.strategy.observe(proposal, measurement)
        if candidate is not None:
            self.archive.add(candidate.policy, measurement, candidate)
        if self.recorded.holds(index):
            self.recorded.check(index, measurement)
            self.run.say.detail(f"candidate {index + 1}: {'recalled' if recalled else 'repeated'}")
            return measurement, candidate
        self.run.directory.journal(
            "measurement",
            cycle=cycle,
            origin=proposal.origin,
            policy=proposal.policy,
            measurement=measurement,
            target_bytes=target,
            expected_bytes=expected,
            trained=None if candidate is None else candidate.trained,
            decisions=proposal.record,
            learned=learned,
            bench=self.bench.memory,
        )
        _say_measurement(self.run, cycle, proposal, measurement, self.run.spec.original_bytes)
        return measurement, candidate


def _say_measurement(run: Run, cycle: int, proposal: Proposal, m: Measurement, original: int) -> None:
    how = "" if m.fidelity == "full" else f", {m.fidelity}"
    when = f"cycle {cycle + 1}" if cycle < run.config.search.cycles else "after the cycles"
    head = f"{when} ({proposal.origin}{how}): "
    if m.failure is not None:
        run.say.warn(f"{head}candidate rejected: {m.failure}")
        return
    expected = "" if proposal.predicted_drop is None else f" (predicted {proposal.predicted_drop:+.2f})"
    run.say.line(
        f"{head}{m.size_bytes:,} bytes = {original / m.size_bytes:.1f}x, drop {m.drop_points:+.2f} points{expected}, "
        f"{_in_words(proposal)}{_limited_words(run.goal, m)}, {m.seconds:.0f} s"
    )


def _limited_words(goal: Goal, m: Measurement) -> str:
    """What else the goal limits."""
    macs = "" if goal.max_macs is None else f", {m.macs / 1e6:.3g} million MACs"
    return macs + ("" if m.latency_ms is None else f", {m.latency_ms:.3g} ms expected")


def _in_words(proposal: Proposal) -> str:
    decided = [choice for block in proposal.choices for choice in block]
    keep = sum(c.keep_ratio for c in decided) / len(decided)
    lowest, highest = min(decided, key=precision_of), max(decided, key=precision_of)
    return f"from {precision_words(lowest)} to {precision_words(highest)}, {keep:.0%} of the channels on average"
