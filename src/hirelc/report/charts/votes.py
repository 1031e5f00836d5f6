"""What each agent wished for, beside the vote: of both levels."""

from __future__ import annotations

from collections.abc import Sequence

from hirelc.report.charts.chart import Chart, View, cycle_select, name, number, order, tips
from hirelc.report.charts.heat import HEAT_PIXELS, VOTE_PIXELS, heat
from hirelc.report.decisions import SIZE_LEVELS, size_vote_rows, vote_rows
from hirelc.report.reading import Json, Run
from hirelc.report.steps import Step

_PLAIN = {"ticks": False, "domain": False}


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


def size_vote_chart(run: Run, measured: Sequence[Step]) -> Chart | None:
    """The high level: which size and strategy each agent wished for each block, and what the vote made of it."""
    rows = size_vote_rows(run, measured)
    if not rows:
        return None
    cycles = sorted({row["cycle"] for row in rows})
    blocks = len({row["block"] for row in rows})
    strategies = {"domain": ["auto", "quantization", "pruning"]}
    sizes = order("size", "size", scale={"domain": list(SIZE_LEVELS)}, legend={"columns": {"expr": "width < 380 ? 2 : 5"}})
    strong = f"datum.size === '{SIZE_LEVELS[-1]}' || datum.size === '{SIZE_LEVELS[-2]}'"
    return Chart(
        name="size-votes",
        title="Votes of the high-level agents",
        summary=(
            "Per block, the size and the strategy that each agent of the high level wished for, and the vote. Sizes are "
            "levels around what the search begins with for each block; budgets are balanced from them."
        ),
        rows=rows,
        views=[
            _size_view("Size", "size", sizes, strong, cycles, blocks),
            _size_view("Strategy", "strategy", name("strategy", "strategy", scale=strategies), "true", cycles, blocks),
        ],
        columns={
            "Cycle": "cycle",
            "Block": "block",
            "Who": "who",
            "Weighs": "weighs",
            "Size": "size",
            "Strategy": "strategy",
        },
        choose="Vote on",
    )


def _size_view(label: str, field: str, color: Json, deep: str, cycles: Sequence[int], blocks: int) -> View:
    cells = {"x": _across(), "y": name("block", None, axis=_PLAIN), "text": {"field": field}}
    drawn = heat(
        label,
        HEAT_PIXELS * blocks,
        field,
        {**cells, "tooltip": tips("block", "who", "weighs", "size", "strategy")},
        color,
        deep,
    )
    return View(label, {**drawn.spec, **_one_cycle(cycles)})


def _across() -> Json:
    return name("who", None, axis={"orient": "top", "labelAngle": 0, "labelLimit": 90, **_PLAIN})


def _one_cycle(cycles: Sequence[int]) -> Json:
    return {"params": [cycle_select(cycles)], "transform": [{"filter": "datum.cycle === toNumber(shown)"}]}


def _votes_view(label: str, field: str, cycles: Sequence[int], kernels: int) -> View:
    keep = number("keep", "channels kept", scale={"domain": [0.3, 1]}, legend={"format": "%"})
    layouts = {"domain": ["learned", "per channel", "uniform", "log"]}
    colors = {
        "bits": (
            order("bits", "bits", scale={"domain": list(range(1, 9))}, legend={"columns": {"expr": "width < 380 ? 4 : 7"}}),
            "datum.bits > 5",
            {},
        ),
        "keep": (keep, "datum.keep > 0.7", {"format": ".0%"}),
        "type": (name("type", "number type", scale={"domain": ["int", "float"]}), "true", {}),
        "granularity": (name("granularity", "granularity", scale=layouts), "true", {}),
    }
    color, deep, pattern = colors[field]
    cells = {
        "x": _across(),
        "y": name("kernel", None, axis=_PLAIN),
        "text": {"field": field, **({"type": "quantitative", **pattern} if pattern else {})},
        "tooltip": tips("kernel", "who", "weighs", "bits", ("keep", ".0%"), "type", "granularity"),
    }
    drawn = heat(label, VOTE_PIXELS * kernels, str(color["title"]), cells, color, deep)
    return View(label, {**drawn.spec, **_one_cycle(cycles)})
