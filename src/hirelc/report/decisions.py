"""What the agents decided, as rows for charts: budgets, votes, rewards, predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hirelc.policy import Choice, Granularity, NumberType
from hirelc.precision import highest_rung, lowest_rung, nominal_bits, with_precision
from hirelc.report.reading import Json, Run
from hirelc.report.steps import FULL, Step

NETWORK = "network (budgets)"
VOTE, FINAL = "vote", "measured"
SIZE_LEVELS = ("smallest", "smaller", "as begun", "larger", "largest")
MOST_ROWS = 6_000  # of votes: a page of a very large network shows its last cycles

_LEANINGS = ("accuracy first", "balanced", "size first")
_TYPES, _GRANULARITIES = tuple(NumberType), tuple(Granularity)


def voted(measured: Sequence[Step]) -> list[Step]:
    """The measurements whose policy the two levels of agents decided: the most rigorous one of each cycle."""
    return list({step.cycle: step for step in measured if step.decisions.get("low_level")}.values())


def budget_rows(run: Run, measured: Sequence[Step]) -> list[Json]:
    """What each block was granted in each cycle, beside its sensitivity."""
    sensitivity = run.event("sensitivity").get("blocks", {})
    names = list(run.blocks())
    rows: list[Json] = []
    for step in voted(measured):
        budgets = step.decisions.get("high_level", {}).get("budgets", [])
        for name, budget in zip(names, budgets, strict=False):
            rows.append(
                {
                    "cycle": step.cycle,
                    "block": name,
                    "granted": 100 * budget["target_fraction"],
                    "sensitivity": sensitivity.get(name),
                    "strategy": budget.get("strategy"),
                    "lowest bits": _lowest_bits(budget),
                    "allowed drop": budget.get("max_drop"),
                }
            )
    return rows


def reward_rows(measured: Sequence[Step]) -> list[Json]:
    """Reward of each agent and of random actions, per cycle."""
    rows: list[Json] = []
    for step in voted(measured):
        high = step.decisions.get("high_level", {}).get("agents", [])
        rows += [_reward(step.cycle, NETWORK, index, agent) for index, agent in enumerate(high)]
        for block in step.decisions["low_level"]:
            agents = block.get("agents", [])
            rows += [_reward(step.cycle, block["block"], index, agent) for index, agent in enumerate(agents)]
    return rows


def _reward(cycle: int, ensemble: str, index: int, agent: Json) -> Json:
    return {
        "cycle": cycle,
        "ensemble": ensemble,
        "agent": agent_name(index, agent),
        "reward": agent["reward"],
        "random": agent["random_reward"],
        "gain": agent["reward"] - agent["random_reward"],
        "entropy": agent.get("entropy"),
    }


def agent_name(index: int, agent: Json) -> str:
    return f"{agent.get('algorithm', 'agent')} {index + 1}"


def weighs(index: int) -> str:
    """Members differ in what they weigh: see the reward in the method."""
    return _LEANINGS[index] if index < len(_LEANINGS) else ""


def size_vote_rows(run: Run, measured: Sequence[Step]) -> list[Json]:
    """For each block and cycle which size and strategy each high-level agent wished for, and the vote."""
    names = list(run.blocks())
    rows: list[Json] = []
    for step in voted(measured):
        record = step.decisions.get("high_level", {})
        agents = record.get("agents", [])
        ballots = [
            (agent_name(i, agents[i] if i < len(agents) else {}), weighs(i), ballot)
            for i, ballot in enumerate(record.get("members", []))
        ]
        for who, leaning, ballot in [*ballots, (VOTE, "", record.get("vote", {}))]:
            for name, level, strategy in zip(names, ballot.get("levels", []), ballot.get("strategies", []), strict=False):
                said = {"cycle": step.cycle, "block": name, "who": who, "weighs": leaning}
                rows.append({**said, "size": SIZE_LEVELS[level], "strategy": strategy})
    return rows


def vote_rows(run: Run, measured: Sequence[Step]) -> tuple[list[Json], str | None]:
    """For each kernel and cycle what each agent wished for, what the vote made of it, and what was measured.

    :returns: the rows, and a sentence when early cycles were left out
    """
    found: list[Json] = []
    note = None
    for step in reversed(voted(measured)):
        rows = list(_votes_of(run, step))
        if found and len(found) + len(rows) > MOST_ROWS:
            note = f"Cycles before {found[0]['cycle']} are left out here; the journal has them."
            break
        found = rows + found
    return found, note


def _votes_of(run: Run, step: Step) -> Iterator[Json]:
    blocks, budgets = run.blocks(), step.decisions.get("high_level", {}).get("budgets", [])
    for index, record in enumerate(step.decisions["low_level"]):
        names = blocks.get(record["block"], [])
        agents = record.get("agents", [])
        decode = _Decoder(run.config.get("search", {}), budgets[index] if index < len(budgets) else {})
        ballots = [
            (agent_name(i, agents[i] if i < len(agents) else {}), weighs(i), action)
            for i, action in enumerate(record.get("members", []))
        ]
        for who, leaning, action in [*ballots, (VOTE, "", record.get("vote", []))]:
            for place, name in enumerate(names):
                numbers = action[4 * place : 4 * place + 4]
                if len(numbers) == 4:
                    said = {"cycle": step.cycle, "kernel": short_name(name), "who": who, "weighs": leaning}
                    yield {**said, **decode(*numbers)}
        for name in names:
            choice = step.choices.get(name)
            if choice is not None:
                yield {"cycle": step.cycle, "kernel": short_name(name), "who": FINAL, "weighs": "", **_plain(choice)}


class _Decoder:
    """Turns the levels of an action into a choice, within the limits of the search and of a budget."""

    def __init__(self, search: Mapping[str, Any], budget: Mapping[str, Any]) -> None:
        self.steps = max(1, int(search.get("levels", 15)) - 1)
        self.highest = highest_rung(int(search.get("max_bits", 8)))
        lowest = max(lowest_rung(int(search.get("min_bits", 2))), int(budget.get("min_precision", 0)))
        self.lowest = min(lowest, self.highest)
        self.min_keep = max(float(search.get("min_keep", 0.5)), 1 - float(budget.get("max_pruning", 1.0)))

    def __call__(self, precision: int, keep: int, number_type: int, granularity: int) -> Json:
        return {
            "bits": _whole_bits(self._choice(precision, number_type, granularity)),
            "keep": round(self.min_keep + (1 - self.min_keep) * keep / self.steps, 3),
            "type": str(_TYPES[number_type]),
            "granularity": str(_GRANULARITIES[granularity]).replace("_", " "),
        }

    def _choice(self, precision: int, number_type: int, granularity: int) -> Choice:
        rung = round(self.lowest + (self.highest - self.lowest) * precision / self.steps)
        return with_precision(Choice(8, 1.0, _TYPES[number_type], _GRANULARITIES[granularity]), rung)


def _plain(choice: Json) -> Json:
    return {
        "bits": _whole_bits(Choice(**choice)),
        "keep": choice["keep_ratio"],
        "type": choice["number_type"],
        "granularity": choice["granularity"].replace("_", " "),
    }


def _whole_bits(choice: Choice) -> int:
    return max(1, round(nominal_bits(choice)))


def _lowest_bits(budget: Json) -> float | None:
    if "min_precision" not in budget:  # a run of an older version
        return budget.get("min_bits")
    return nominal_bits(with_precision(Choice(), int(budget["min_precision"])))


def surrogate_rows(measured: Sequence[Step]) -> list[Json]:
    """Predicted beside measured drop, and the rank correlation of all pairs up to then. Trials with little training are
    left out: what is predicted is the drop after a full one."""
    rows: list[Json] = []
    for step in measured:
        if step.failure is not None or step.predicted is None or step.fidelity != FULL:
            continue
        record = step.learned.get("surrogate", {})
        rows.append(
            {
                "cycle": step.cycle,
                "candidate": step.number + 1,
                "origin": step.origin,
                "predicted": step.predicted,
                "measured": step.drop,
                "error": abs(step.predicted - step.drop),
                "rank correlation": record.get("rank_correlation"),
                "leave-one-out error": record.get("leave_one_out_error"),
                "error of the mean": record.get("mean_error"),
                "in use": "yes" if record.get("in_use") else "no",
            }
        )
    return rows


def training_rows(run: Run, measured: Sequence[Step]) -> list[Json]:
    """Accuracy along every fine-tune that the journal followed."""
    followed = [(f"candidate {step.number + 1}", step.trained) for step in measured]
    followed += [(name, run.event(event).get("trained") or {}) for name, event in (("final", "final"), ("control", "control"))]
    return [
        {"fine-tune": name, "images": images, "accuracy": score}
        for name, trained in followed
        for images, score in trained.get("scores", [])
    ]


def short_name(kernel: str) -> str:
    """The module's path: what every kernel's name ends with says nothing."""
    return kernel.removesuffix(".weight")
