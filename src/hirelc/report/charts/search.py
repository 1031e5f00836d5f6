"""How the search decided: budgets, rewards, predictions."""

from __future__ import annotations

from collections.abc import Sequence

from hirelc.report.charts.chart import ROWS, Chart, View, name, number, order, tips, view
from hirelc.report.charts.heat import HEAT_PIXELS, by_cycle, heat
from hirelc.report.decisions import NETWORK, budget_rows, reward_rows, surrogate_rows
from hirelc.report.reading import Json, Run
from hirelc.report.steps import Step


def budget_chart(run: Run, measured: Sequence[Step]) -> Chart | None:
    """What each block was granted, against its sensitivity and by cycle."""
    rows = [row for row in budget_rows(run, measured) if row["sensitivity"] is not None]
    if not rows:
        return None
    tooltip = tips(
        "block", "cycle", ("granted", ".2f"), ("sensitivity", ".2f"), "strategy", "lowest bits", ("allowed drop", ".2f")
    )
    granted = [row["granted"] for row in rows]
    cells = {**by_cycle("block"), "text": number("granted", None, format=".1f"), "tooltip": tooltip}
    scatter = {
        "mark": {"type": "point", "filled": True, "size": 100, "opacity": 0.85},
        "encoding": {
            "x": number("sensitivity", "sensitivity of the block", scale={"domain": [0, 1]}),
            "y": number("granted", "granted, % of the block's fp32 bytes", scale={"zero": True}),
            "color": name("cycle", "cycle"),
            "tooltip": tooltip,
        },
    }
    return Chart(
        name="budgets",
        title="Budgets of the blocks",
        summary=(
            "What the high-level agents granted each block, in percent of its bytes in fp32: as a table of colours by cycle, "
            "and against the block's sensitivity. Where the agents work well, sensitive blocks are granted more."
        ),
        rows=rows,
        views=[
            heat(
                "By cycle",
                HEAT_PIXELS * len(run.blocks()),
                "granted, %",
                cells,
                number("granted", None),
                f"datum.granted > {_middle(granted):.4f}",
            ),
            view("Against sensitivity", 300, **scatter),
        ],
        columns={
            "Cycle": "cycle",
            "Block": "block",
            "Granted, %": "granted",
            "Sensitivity": "sensitivity",
            "Strategy": "strategy",
            "Lowest bits": "lowest bits",
            "Allowed drop": "allowed drop",
        },
    )


def reward_chart(measured: Sequence[Step]) -> Chart | None:
    """What agents earned, beside random actions."""
    rows = reward_rows(measured)
    if not rows:
        return None
    totals = [
        {"op": "mean", "field": "reward", "as": "reward"},
        {"op": "mean", "field": "random", "as": "random"},
        {"op": "mean", "field": "gain", "as": "gain"},
        {"op": "mean", "field": "entropy", "as": "entropy"},
    ]
    tooltip = tips("ensemble", "cycle", ("gain", "+.2f"), ("reward", ".2f"), ("random", ".2f"), ("entropy", ".0%"))
    most = max(abs(row["gain"]) for row in rows) or 1.0
    cells = {**by_cycle("ensemble"), "text": number("gain", None, format="+.1f"), "tooltip": tooltip}
    color = number("gain", None, scale={"domain": [-most, 0, most], "range": "diverging"})
    height = HEAT_PIXELS * len({row["ensemble"] for row in rows})
    gains = heat("Gain over random", height, "gain over random actions", cells, color, f"abs(datum.gain) > {0.6 * most:.4f}")
    mean = {"transform": [{"aggregate": totals, "groupby": ["ensemble", "cycle"]}]}
    return Chart(
        name="rewards",
        title="Rewards of the agents",
        summary=(
            "Mean reward a step of each ensemble, less what random actions earn in the same environment: above zero the "
            "agents have learned something. The other view shows both, averaged over the blocks."
        ),
        rows=rows,
        views=[View(gains.label, {**gains.spec, **mean}), _reward_lines()],
        columns={
            "Cycle": "cycle",
            "Ensemble": "ensemble",
            "Agent": "agent",
            "Reward": "reward",
            "Random actions": "random",
            "Gain": "gain",
            "Entropy of the policy": "entropy",
        },
    )


def _middle(values: Sequence[float]) -> float:
    return (min(values) + max(values)) / 2


def _reward_lines() -> View:
    who = name("who", None, scale={"domain": ["agents", "random actions"]})
    return view(
        "Agents and random",
        260,
        transform=[
            {"calculate": f"datum.ensemble === '{NETWORK}' ? 'budgets' : 'blocks'", "as": "level"},
            {
                "aggregate": [
                    {"op": "mean", "field": "reward", "as": "agents"},
                    {"op": "mean", "field": "random", "as": "random actions"},
                ],
                "groupby": ["level", "cycle"],
            },
            {"fold": ["agents", "random actions"], "as": ["who", "mean reward"]},
        ],
        mark={"type": "line", "point": {"filled": True, "size": 70}},
        encoding={
            "x": order("cycle", "cycle", axis={"labelAngle": 0}),
            "y": number("mean reward", "mean reward a step", scale={"zero": False}),
            "color": who,
            "strokeDash": name("level", "level", scale={"domain": ["budgets", "blocks"]}),
            "tooltip": tips("level", "who", "cycle", ("mean reward", ".2f")),
        },
    )


def surrogate_chart(measured: Sequence[Step]) -> Chart | None:
    """Predicted against measured drop, and the rank correlation as measurements come in."""
    rows = surrogate_rows(measured)
    if not rows:
        return None
    values = [value for row in rows for value in (row["predicted"], row["measured"])]
    ends = [{"end": min(values)}, {"end": max(values)}]
    across = {"title": "predicted drop, points", "scale": {"zero": False, "padding": 16}}
    up = {"title": "measured drop, points", "scale": {"zero": False, "padding": 16}}
    same = {
        "data": {"values": ends},
        "mark": {"type": "line", "style": "limit", "aria": False, "tooltip": None},
        "encoding": {"x": {**number("end", None), **across}, "y": {**number("end", None), **up}},
    }
    tooltip = tips("candidate", "cycle", "origin", ("predicted", "+.2f"), ("measured", "+.2f"), "in use")
    points = {
        "mark": {"type": "point", "filled": True, "size": 110, "opacity": 0.95},
        "encoding": {
            "x": {**number("predicted", None), **across},
            "y": {**number("measured", None), **up},
            "color": name("cycle", "cycle"),
            "tooltip": tooltip,
        },
    }
    return Chart(
        name="surrogate",
        title="Predicted against measured",
        summary=(
            "The drop that was predicted for each candidate before it was measured; on the dashed line the prediction was "
            "right. The rank correlation (Spearman) counts all pairs up to that measurement and needs three."
        ),
        rows=rows,
        views=[view("Drop", 300, layer=[same, points]), *_correlation(rows)],
        columns={
            "Candidate": "candidate",
            "Cycle": "cycle",
            "Predicted": "predicted",
            "Measured": "measured",
            "Error": "error",
            "Rank correlation so far": "rank correlation",
            "Leave-one-out error": "leave-one-out error",
            "Error of the samples' mean": "error of the mean",
            "Surrogate in use": "in use",
        },
    )


def _correlation(rows: Sequence[Json]) -> list[View]:
    if all(row["rank correlation"] is None for row in rows):
        return []
    return [
        view(
            "Rank correlation",
            300,
            data={"name": ROWS},
            transform=[{"filter": "isValid(datum['rank correlation'])"}],
            mark={"type": "line", "point": {"filled": True, "size": 90}},
            encoding={
                "x": order("candidate", "measurements so far", axis={"labelAngle": 0}),
                "y": number("rank correlation", "rank correlation", scale={"domain": [-1, 1]}),
                "tooltip": tips("candidate", "cycle", ("rank correlation", ".2f")),
            },
        )
    ]
