"""How the search decided: budgets, votes, rewards, predictions."""

from __future__ import annotations

from collections.abc import Sequence

from hirelc.report.charts.chart import ROWS, Chart, View, cycle_select, name, number, order, tips, view
from hirelc.report.decisions import NETWORK, budget_rows, reward_rows, surrogate_rows, vote_rows
from hirelc.report.reading import Json, Run
from hirelc.report.steps import Step

HEAT_PIXELS, VOTE_PIXELS = 26, 22


def budget_chart(run: Run, measured: Sequence[Step]) -> Chart | None:
    """What each block was granted, against its sensitivity and by cycle."""
    rows = [row for row in budget_rows(run, measured) if row["sensitivity"] is not None]
    if not rows:
        return None
    tooltip = tips(
        "block", "cycle", ("granted", ".2f"), ("sensitivity", ".2f"), "strategy", "lowest bits", ("allowed drop", ".2f")
    )
    granted = [row["granted"] for row in rows]
    cells = {**_by_cycle("block"), "text": number("granted", None, format=".1f"), "tooltip": tooltip}
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
            _heat(
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


def _heat(label: str, height: int, title: str, cells: Json, color: Json, deep: str) -> View:
    """Coloured cells with their numbers in them.

    :param cells: x, y, text and tooltip
    :param deep: an expression that holds where the cell's colour is so strong that its number needs the other ink
    """
    place = {"x": cells["x"], "y": cells["y"]}
    layers: list[Json] = [
        {
            "mark": {"type": "rect", "style": "edge", "cornerRadius": 2},
            "encoding": {**place, "color": {**color, "title": title}, "tooltip": cells["tooltip"]},
        }
    ]
    for style, only in (("on-pale", f"!({deep})"), ("on-deep", deep)):
        layers.append(
            {
                "transform": [{"filter": only}],
                "mark": {"type": "text", "style": style, "aria": False, "tooltip": None, "fontSize": 11},
                "encoding": {**place, "text": cells["text"]},
            }
        )
    return view(label, height, layer=layers)


def _by_cycle(rows: str) -> Json:
    plain = {"ticks": False, "domain": False}
    return {"x": order("cycle", "cycle", axis={"labelAngle": 0, **plain}), "y": name(rows, None, axis=plain)}


def vote_chart(run: Run, measured: Sequence[Step]) -> tuple[Chart | None, str | None]:
    """Each agent's wish beside the vote and what was measured, per kernel; and a note when cycles were left out."""
    rows, note = vote_rows(run, measured)
    if not rows:
        return None, None
    cycles = sorted({row["cycle"] for row in rows})
    kernels = len({row["kernel"] for row in rows})
    fields = [("Bits", "bits"), ("Channels kept", "keep"), ("Type", "type"), ("Granularity", "granularity")]
    chart = Chart(
        name="votes",
        title="Votes of the low-level agents",
        summary=(
            "Per kernel, what each agent of the block's ensemble wished for, what the vote made of it, and what was measured "
            "once the policy was fitted to the budget's bytes."
        ),
        rows=rows,
        views=[_votes_view(label, field, cycles, kernels) for label, field in fields],
        columns={
            "Cycle": "cycle",
            "Kernel": "kernel",
            "Who": "who",
            "Weighs": "weighs",
            "Bits": "bits",
            "Channels kept": "keep",
            "Type": "type",
            "Granularity": "granularity",
        },
        choose="Vote on",
    )
    return chart, note


def _votes_view(label: str, field: str, cycles: Sequence[int], kernels: int) -> View:
    keep = number("keep", "channels kept", scale={"domain": [0.3, 1]}, legend={"format": "%"})
    layouts = {"domain": ["learned", "per channel", "uniform", "log"]}
    colors = {
        "bits": (
            order("bits", "bits", scale={"domain": list(range(2, 9))}, legend={"columns": {"expr": "width < 380 ? 4 : 7"}}),
            "datum.bits > 5",
            {},
        ),
        "keep": (keep, "datum.keep > 0.7", {"format": ".0%"}),
        "type": (name("type", "number type", scale={"domain": ["int", "float"]}), "true", {}),
        "granularity": (name("granularity", "granularity", scale=layouts), "true", {}),
    }
    color, deep, pattern = colors[field]
    plain = {"ticks": False, "domain": False}
    across = name("who", None, axis={"orient": "top", "labelAngle": 0, "labelLimit": 90, **plain})
    cells = {
        "x": across,
        "y": name("kernel", None, axis=plain),
        "text": {"field": field, **({"type": "quantitative", **pattern} if pattern else {})},
        "tooltip": tips("kernel", "who", "weighs", "bits", ("keep", ".0%"), "type", "granularity"),
    }
    drawn = _heat(label, VOTE_PIXELS * kernels, str(color["title"]), cells, color, deep)
    shown = {"params": [cycle_select(cycles)], "transform": [{"filter": "datum.cycle === toNumber(shown)"}]}
    return View(label, {**drawn.spec, **shown})


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
    cells = {**_by_cycle("ensemble"), "text": number("gain", None, format="+.1f"), "tooltip": tooltip}
    color = number("gain", None, scale={"domain": [-most, 0, most], "range": "diverging"})
    height = HEAT_PIXELS * len({row["ensemble"] for row in rows})
    heat = _heat("Gain over random", height, "gain over random actions", cells, color, f"abs(datum.gain) > {0.6 * most:.4f}")
    mean = {"transform": [{"aggregate": totals, "groupby": ["ensemble", "cycle"]}]}
    return Chart(
        name="rewards",
        title="Rewards of the agents",
        summary=(
            "Mean reward a step of each ensemble, less what random actions earn in the same environment: above zero the "
            "agents have learned something. The other view shows both, averaged over the blocks."
        ),
        rows=rows,
        views=[View(heat.label, {**heat.spec, **mean}), _reward_lines()],
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
        "mark": {"type": "point", "filled": True, "size": 110},
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
