"""The method: high level over low level. Budgets go down, policies come up, measurements teach both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirelc.config import SearchConfig
from hirelc.errors import RunError
from hirelc.policy import Budget, Choice, Goal, Measurement, Policy, Strategy
from hirelc.search.agents import AgentSettings, Ensemble, MemberReport
from hirelc.search.bounds import FLOAT32_BYTES, Bounds, size_fraction
from hirelc.search.budgets import ByteTarget, Treasury
from hirelc.search.environments import (
    GRANULARITIES,
    NUMBER_TYPES,
    BlockEnvironment,
    BlockScene,
    Feedback,
    NetworkEnvironment,
    NetworkScene,
    curves_by_strategy,
)
from hirelc.search.fitting import Choices, Fit, fit_block
from hirelc.search.improvement import expected_improvement
from hirelc.search.problem import INCUMBENT, Problem, Proposal
from hirelc.search.rewards import BALANCED, HIGH_LEVEL_WEIGHTS, LOW_LEVEL_WEIGHTS, severity
from hirelc.search.steps import step
from hirelc.search.surrogate import Surrogate, distortion_of, network_features
from hirelc.search.variations import Variations
from hirelc.search.voting import (
    GRANULARITY_SAFETY,
    NUMBER_TYPE_SAFETY,
    STRATEGY_SAFETY,
    VoteWeights,
    member_losses,
    vote_category,
    vote_ordinal,
)
from hirelc.search.warm import WarmStart
from hirelc.seeds import stream_seed

logger = logging.getLogger("hirelc")

Action = NDArray[np.int64]
Progress = Callable[[str, float], None]

DEFAULT_MAX_DROP = 1.0  # points; the paper's "full marks under 1 point", where the goal sets no limit
_LEAST_SHARE = 1e-3


@dataclass(frozen=True)
class _Ballot:
    """What each member wished for in a cycle, kept until the voted policy is measured.

    The first entry of each sequence is the vote's own, the others the members'.
    """

    low_drops: Sequence[float]
    low_sizes: Sequence[float]
    high_drops: Sequence[float]
    high_sizes: Sequence[float]


class HierarchicalSearch:
    """`SearchStrategy` of hirelc: a high-level ensemble grants budgets, one low-level ensemble per block spends them.

    Cycle 0 proposes the warm start (the exact solution for the proxy, near which the agents begin) and the vote, later
    cycles the vote. The first half of the cycles explores (members' actions are drawn), the rest is deterministic. Where
    there are trials, the vote has to beat others: the best policy so far, which is trained on where none is better, the
    members' own wishes, and when nothing explores any more what lies around the vote and the best. No other policy than
    that is proposed twice.

    :param progress: told what goes on, and which part of the cycle is done, 0 to 1
    """

    def __init__(
        self,
        problem: Problem,
        goal: Goal,
        config: SearchConfig,
        seed: int,
        progress: Progress | None = None,
        settings: AgentSettings | None = None,
    ) -> None:
        self._problem, self._config, self._seed = problem, config, seed
        self._progress: Progress = progress or (lambda message, fraction: None)
        self._bounds = Bounds.of(config)
        self._target = ByteTarget(problem, goal)
        self._allowed = goal.max_drop if goal.max_drop is not None else DEFAULT_MAX_DROP
        learns = config.without != "surrogate"
        self._surrogate = Surrogate(stream_seed(seed, "surrogate"), config.surrogate_min_samples, learns)
        self._warm = WarmStart(problem, self._bounds, config.without != "warm-start")
        self._reference = self._warm.reference(self._target.bytes)
        self._incumbent = self._warm.at(self._target.bytes)
        self._feedback: Feedback | None = None
        self._best: Measurement | None = None
        self._proposed: set[Policy] = set()
        self._ballots: dict[Policy, _Ballot] = {}
        members = 1 if config.without == "ensemble" else len(LOW_LEVEL_WEIGHTS)
        self._low_weights, self._high_weights = VoteWeights(members), VoteWeights(members)
        curves = curves_by_strategy(problem, self._bounds)
        self._network, self._usual = NetworkScene(curves), curves[Strategy.AUTO]
        self._governors = Ensemble(
            "network", lambda weights: NetworkEnvironment(self._network, weights), HIGH_LEVEL_WEIGHTS[:members], seed, settings
        )
        self._scenes = [
            BlockScene(problem, block, share, self._bounds) for block, share in enumerate(self._distortion_shares())
        ]
        self._agents = [self._block_ensemble(scene, settings) for scene in self._scenes]
        if self._warm.on:
            self._governors.warm_start(self._network.middle())

    def _block_ensemble(self, scene: BlockScene, settings: AgentSettings | None) -> Ensemble:
        levels = self._config.levels
        weights = (BALANCED,) if self._config.without == "ensemble" else LOW_LEVEL_WEIGHTS
        return Ensemble(scene.info.name, lambda own: BlockEnvironment(scene, own, levels), weights, self._seed, settings)

    def _distortion_shares(self) -> list[float]:
        """Each block's part of the reference's distortion, above 0 and summing to about 1."""
        parts = np.array([self._problem.block_distortion(b, choices) for b, choices in enumerate(self._reference.choices)])
        if parts.sum() <= 0:
            return [1 / len(parts)] * len(parts)
        return [float(share) for share in np.maximum(parts / parts.sum(), _LEAST_SHARE)]

    # -- proposing ------------------------------------------------------------------------------------------

    def propose(self, cycle: int) -> Sequence[Proposal]:
        """The policies to measure in this cycle: see the class.

        :raises RunError: when a reward carries no signal
        """
        proposals = [self._first_proposal()] if cycle == 0 else []
        deterministic = cycle >= self._config.exploring
        budgets, high_record, high_drops, high_sizes = self._decide_budgets(cycle, deterministic)
        voted, low_record, wishes = self._decide_blocks(cycle, budgets, deterministic)
        stepped, taken = self._stepped(voted)
        found = self._fit_unseen(stepped, budgets, cycle)
        if found is None:
            logger.warning("cycle %d: no policy is left that was not proposed before", cycle)
            return proposals
        fit, redrawn = found
        policy = self._problem.policy(fit.choices)
        self._proposed.add(policy)
        low_drops, low_sizes = [*map(self._predict, wishes)], [float(self._problem.file_bytes(wish)) for wish in wishes]
        self._ballots[policy] = _Ballot(low_drops, low_sizes, high_drops, high_sizes)
        predicted = self._predict(fit.choices)
        record = {
            "cycle": cycle,
            "exploring": not deterministic,
            "byte_target": self._target.bytes,
            "high_level": high_record,
            "low_level": low_record,
            "low_level_vote_weights": self._low_weights.values,
            "blocks_taken": [self._problem.blocks[block].name for block in taken],
            "kernels_redrawn": redrawn,
            "fit": _fit_record(fit),
            "predicted_drop": predicted,
            "surrogate": self._surrogate.record(),
        }
        rivals = self._rivals(wishes[1:], fit.choices, budgets, cycle) if self._config.contenders > 1 else []
        proposals.append(Proposal(policy, fit.choices, "vote", predicted, budgets, record, trial=bool(rivals)))
        return [*proposals, *rivals]

    def _rivals(
        self, wishes: Sequence[Sequence[Choices]], voted: Sequence[Choices], budgets: tuple[Budget, ...], cycle: int
    ) -> list[Proposal]:
        """Policies that the vote has to beat in this cycle: the best so far, and those that promise most improvement on it;
        while agents explore their own wishes, later also what lies around the vote and the best policy."""
        variations, explores = self._variations(budgets), cycle < self._config.exploring
        fitted = [variations.fit(self._stepped(wish)[0]) for wish in wishes]
        pool = [("member", fit.choices) for fit in fitted if fit.fits]
        if not explores:
            generator = np.random.default_rng(stream_seed(self._seed, "rivals", cycle))
            pool = [*variations.around(voted, self._incumbent, self._config.contenders, generator), *pool]
        policies = {self._problem.policy(choices): (origin, choices) for origin, choices in reversed(pool)}
        ranked = []
        for policy, (origin, choices) in policies.items():
            if policy not in self._proposed:
                drop, doubt = self._surrogate.uncertain(network_features(self._problem, choices))
                gain = expected_improvement(np.inf if self._best is None else self._best.judged_drop, drop, doubt)
                ranked.append(
                    (gain, Proposal(policy, choices, origin, drop, budgets, {"expected_improvement": gain}, trial=True))
                )
        ranked.sort(key=lambda entry: -entry[0])
        best = self._incumbent
        known = Proposal(self._problem.policy(best), best, INCUMBENT, self._predict(best), trial=True)
        chosen = [known, *(proposal for _, proposal in ranked)][: self._config.contenders - 1]
        self._proposed |= {proposal.policy for proposal in chosen}
        return chosen

    def _first_proposal(self) -> Proposal:
        """The warm start, or the reference without one."""
        choices, origin = self._incumbent, "warm start" if self._warm.on else "reference"
        policy = self._problem.policy(choices)
        self._proposed.add(policy)
        predicted = self._predict(choices)
        record: dict[str, Any] = {"byte_target": self._target.bytes, "predicted_drop": predicted}
        if not self._warm.on:
            record["fit"] = _fit_record(self._reference)
        return Proposal(policy, choices, origin, predicted, (), record)

    def _predict(self, choices: Sequence[Sequence[Choice]]) -> float:
        return self._surrogate.predict(network_features(self._problem, choices))

    def _decide_budgets(
        self, cycle: int, deterministic: bool
    ) -> tuple[tuple[Budget, ...], dict[str, Any], list[float], list[float]]:
        """Adapts the high level with the last feedback; its vote, the record, and each wish's drop and size."""
        self._progress("budgets", 0.0)
        law = self._surrogate.cold_start
        # An allowance stricter than what the reference will lose would put every action on the reward's flat tail.
        allowed = max(self._allowed, law.of_distortion(distortion_of(self._problem, self._reference.choices)))
        treasury = Treasury(self._problem, self._bounds, self._target.fraction(self._problem), allowed, self._around())
        if self._config.without == "high-level":
            budgets = treasury.equal_budgets()
            return budgets, {"members": [], "budgets": [asdict(budget) for budget in budgets], "agents": []}, [], []
        self._network.aim(treasury, law, self._feedback or self._no_feedback(), cycle / self._config.cycles)
        reports = self._governors.train(self._config.high_level_steps)
        actions = self._governors.act(deterministic)
        ballots = [self._network.decode(action) for action in actions]
        say = self._high_weights.values
        levels = [vote_ordinal(votes, say) for votes in zip(*(levels for levels, _ in ballots), strict=True)]
        strategies = [
            vote_category(votes, say, STRATEGY_SAFETY) for votes in zip(*(chosen for _, chosen in ballots), strict=True)
        ]
        budgets = treasury.budgets(levels, strategies)
        options = [(levels, strategies), *ballots]
        wishes = [treasury.wishes(wish) for wish, _ in options]
        granted = [treasury.granted(wish, chosen) for wish, (_, chosen) in zip(wishes, options, strict=True)]
        record = {
            "members": [{"levels": wish, "strategies": [*map(str, chosen)]} for wish, chosen in ballots],
            "vote": {"levels": levels, "strategies": [*map(str, strategies)]},
            "vote_weights": say,
            "budgets": [asdict(budget) for budget in budgets],
            "agents": [report.to_json() for report in reports],
        }
        logger.info("budgets: %s", summary(reports))
        drops = [self._network.predicted_drop(fractions, chosen) for fractions, chosen in granted]
        return budgets, record, drops, [float(treasury.shares @ wish) for wish in wishes]

    def _around(self) -> NDArray[np.float64] | None:
        """What the warm start gives every block."""
        return self._fractions(self._warm.at(self._target.bytes)) if self._warm.on else None

    def _no_feedback(self) -> Feedback:
        return Feedback(0.0, 1.0, 0.0, self._fractions(self._reference.choices))

    def _fractions(self, choices: Sequence[Sequence[Choice]]) -> NDArray[np.float64]:
        return np.array([size_fraction(self._problem, block, decided) for block, decided in enumerate(choices)])

    def _decide_blocks(
        self, cycle: int, budgets: Sequence[Budget], deterministic: bool
    ) -> tuple[list[Choices], list[dict[str, Any]], list[tuple[Choices, ...]]]:
        """Trains every block's ensemble in its budget; the fitted votes, the record, and what was wished for the whole
        network: by the vote, and by each member."""
        voted: list[Choices] = []
        wishes: list[list[Choices]] = []
        record: list[dict[str, Any]] = []
        reports: list[MemberReport] = []
        for block, (scene, ensemble, budget) in enumerate(zip(self._scenes, self._agents, budgets, strict=True)):
            self._progress(f"block {scene.info.name}", (1 + block) / (1 + len(budgets)))
            scene.grant(budget, self._surrogate, self._surrogate.in_use, self._incumbent[block])
            if cycle == 0 and self._warm.on:
                ensemble.warm_start(scene.action(self._incumbent[block]))
            learned = ensemble.train(self._config.low_level_steps)
            actions = ensemble.act(deterministic, start=scene.action(self._incumbent[block]))
            vote = self._vote(actions)
            grant = int(budget.target_fraction * FLOAT32_BYTES * scene.info.weights)
            fit = fit_block(self._problem, block, scene.choices(vote), grant, self._bounds.within(budget))
            voted.append(fit.choices[0])
            wishes.append([scene.choices(vote), *map(scene.choices, actions)])
            reports += learned
            record.append(
                {
                    "block": scene.info.name,
                    "members": [action.tolist() for action in actions],
                    "vote": vote.tolist(),
                    "drop_spread": scene.drop_spread,
                    "fit": _fit_record(fit),
                    "agents": [report.to_json() for report in learned],
                }
            )
        if not any(scene.drop_spread > 0 for scene in self._scenes):
            raise RunError("the accuracy reward carries no signal: every action of every block predicts the same drop")
        logger.info("blocks: %s", summary(reports))
        return voted, record, list(zip(*wishes, strict=True))

    def _vote(self, actions: Sequence[Action]) -> Action:
        """Precision and keep levels by weighted mean, number type and granularity by weighted majority."""
        say = self._low_weights.values
        vote = []
        per_kernel = np.stack(actions).reshape(len(actions), -1, 4).transpose(1, 2, 0)
        for precision, keep, number_type, granularity in per_kernel.tolist():
            kind = vote_category([NUMBER_TYPES[t] for t in number_type], say, NUMBER_TYPE_SAFETY)
            layout = vote_category([GRANULARITIES[g] for g in granularity], say, GRANULARITY_SAFETY)
            levels = [vote_ordinal(precision, say), vote_ordinal(keep, say)]
            vote += [*levels, NUMBER_TYPES.index(kind), GRANULARITIES.index(layout)]
        return np.array(vote, np.int64)

    def _fit_unseen(self, voted: Sequence[Choices], budgets: Sequence[Budget], cycle: int) -> tuple[Fit, int] | None:
        """The vote, fitted to the file's limit, and 0; where that is known already, its best new variation.

        Variations redraw one kernel at random, then more; the least predicted drop among them is taken.

        :returns: the fit and how many kernels were redrawn; None when nothing new was found
        """
        generator = np.random.default_rng(stream_seed(self._seed, "redraw", cycle))
        variations = self._variations(budgets)
        fit = variations.fit(voted)
        if self._problem.policy(fit.choices) not in self._proposed:
            return fit, 0
        for redrawn in range(1, sum(map(len, voted)) + 1):
            found = variations.of(voted, redrawn, generator)
            unseen = [fit for fit in found if self._problem.policy(fit.choices) not in self._proposed]
            if unseen:
                return min(unseen, key=lambda fit: (not fit.fits, self._predict(fit.choices))), redrawn
        return None

    def _stepped(self, wish: Sequence[Choices]) -> tuple[Sequence[Choices], Sequence[int]]:
        """What of a wish is taken, and in which blocks: without a warm start, which is worth keeping, all of it."""
        if not self._warm.on:
            return wish, range(len(wish))
        return step(self._problem, self._usual, self._incumbent, wish)

    def _variations(self, budgets: Sequence[Budget]) -> Variations:
        within = [self._bounds.within(budget) for budget in budgets]
        return Variations(self._problem, self._bounds, within, self._target.bytes)

    # -- learning from measurements -------------------------------------------------------------------------

    def observe(self, proposal: Proposal, measurement: Measurement) -> Mapping[str, Any]:
        """Feeds a rigorous measurement to the target, the surrogate, the high level and the votes' weights.

        A failed measurement teaches nothing: its drop is that of a broken candidate, not of its policy.

        :returns: the journal's entry, predicted beside measured
        """
        if measurement.failure is not None:
            return {"predicted_drop": proposal.predicted_drop, "measured_drop": None, "failure": measurement.failure}
        drop, target = measurement.judged_drop, self._target.bytes
        if measurement.fidelity != "full":  # what full training would have recovered is not known
            return {"predicted_drop": proposal.predicted_drop, "measured_drop": drop}
        if self._best is None or measurement.verdict.beats(self._best.verdict):
            self._best, self._incumbent = measurement, tuple(map(tuple, proposal.choices))
        self._target.observe(measurement.size_bytes, drop)
        miss = severity(drop, self._allowed)
        self._feedback = Feedback(drop, measurement.size_bytes / target, miss, self._fractions(proposal.choices))
        ballot = self._ballots.pop(proposal.policy, None)
        if ballot is not None:
            self._judge(self._low_weights, ballot.low_drops, ballot.low_sizes, drop)
            self._judge(self._high_weights, ballot.high_drops, ballot.high_sizes, drop)
        used = self._surrogate.in_use
        record = self._surrogate.observe(network_features(self._problem, proposal.choices), drop, proposal.predicted_drop)
        if not self._surrogate.in_use:
            logger.info("surrogate: the cold-start law predicts (%d samples)", record["samples"])
        elif not used:
            logger.info("surrogate: in use from now on (%d samples)", record["samples"])
        error = None if proposal.predicted_drop is None else abs(proposal.predicted_drop - drop)
        return {
            "predicted_drop": proposal.predicted_drop,
            "measured_drop": drop,
            "absolute_error": error,
            "severity": miss,
            "low_level_vote_weights": self._low_weights.values,
            "high_level_vote_weights": self._high_weights.values,
            "surrogate": record,
        }

    def _judge(self, weights: VoteWeights, drops: Sequence[float], sizes: Sequence[float], measured: float) -> None:
        if drops:  # nobody voted without a high level
            weights.update(member_losses(drops[1:], sizes[1:], drops[0], sizes[0], measured, self._allowed))


def _fit_record(fit: Fit) -> dict[str, Any]:
    return {"size_bytes": fit.size_bytes, "fits": fit.fits, "kernels_changed": fit.changed}


def summary(reports: Sequence[MemberReport]) -> str:
    """One line for people: do the agents beat random actions, and have they made up their minds?"""
    reward, random, entropy = np.mean([(r.reward, r.random_reward, r.entropy) for r in reports], axis=0)
    return f"agents earn {reward:.2f} a step, random actions {random:.2f}; entropy {entropy:.0%} of random"
