"""A comparison as a table: for the terminal, as Markdown, and as rows for charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from hirelc.ablation import METHOD, Outcome, Plan
from hirelc.words import duration, goal_words, table

HEADINGS = (
    "variant",
    "seeds",
    "bytes",
    "ratio",
    "lost",
    "spread",
    "loss",
    "against",
    "better",
    "found by",
    "full",
    "short",
    "time",
)


@dataclass(frozen=True)
class Line:
    """A variant over all its seeds. Means; None where there is nothing to say.

    :param lost: points on the search-validation split; :param spread: standard deviation over seeds
    :param excess_loss: mostly the task's own, beyond the original's
    :param against: points that it loses more than the method does, over the seeds that both have
    :param better: on how many of these seeds it loses less than the method
    """

    variant: str
    seeds: int
    size_bytes: float
    ratio: float
    lost: float | None
    spread: float | None
    excess_loss: float | None
    against: float | None
    better: tuple[int, int] | None
    within: bool
    found_by: str
    measurements: float
    short: float
    seconds: float
    test_loss: float | None
    failures: tuple[str, ...]


def lines(found: Sequence[Outcome]) -> list[Line]:
    """A line per variant, the least drop first; variants whose files are too long, and those that failed, at the end."""
    names = dict.fromkeys(outcome.variant for outcome in found)
    method = {outcome.seed: outcome for outcome in found if outcome.variant == METHOD and outcome.failure is None}
    rows = [_line(name, [outcome for outcome in found if outcome.variant == name], method) for name in names]
    return sorted(rows, key=lambda row: (row.lost is None, not row.within, row.lost or 0.0))


def _line(name: str, runs: Sequence[Outcome], method: dict[int, Outcome]) -> Line:
    good = [run for run in runs if run.failure is None]
    failures = tuple(f"seed {run.seed}: {run.failure}" for run in runs if run.failure is not None)
    if not good:
        return Line(name, len(runs), 0, 0, None, None, None, None, None, False, "", 0, 0, 0, None, failures)
    drops = [run.drop_points for run in good]
    pairs = [(run.drop_points, method[run.seed].drop_points) for run in good if run.seed in method and name != METHOD]
    tests = [run.test_loss for run in good if run.test_loss is not None]
    losses = [run.excess_loss for run in good if run.excess_loss is not None]
    return Line(
        name,
        len(runs),
        mean(run.size_bytes for run in good),
        mean(run.ratio for run in good),
        mean(drops),
        stdev(drops) if len(drops) > 1 else None,
        mean(losses) if len(losses) == len(good) else None,
        mean(own - its for own, its in pairs) if pairs else None,
        (sum(own < its for own, its in pairs), len(pairs)) if pairs else None,
        all(run.within for run in good),
        ", ".join(sorted({run.found_by for run in good})),
        mean(run.measurements for run in good),
        mean(run.short for run in good),
        mean(run.seconds for run in good),
        mean(tests) if len(tests) == len(good) else None,
        failures,
    )


def _cells(row: Line) -> tuple[str, ...]:
    if row.lost is None:
        return (row.variant, str(row.seeds), *["-"] * (len(HEADINGS) - 3), "failed")
    return (
        row.variant,
        str(row.seeds),
        f"{row.size_bytes:,.0f}" + ("" if row.within else " (too long)"),
        f"{row.ratio:.1f}x",
        f"{row.lost:+.2f}",
        "-" if row.spread is None else f"{row.spread:.2f}",
        "-" if row.excess_loss is None else f"{row.excess_loss:.4f}",
        "-" if row.against is None else f"{row.against:+.2f}",
        "-" if row.better is None else f"{row.better[0]} of {row.better[1]}",
        row.found_by,
        f"{row.measurements:.3g}",
        f"{row.short:.3g}",
        duration(row.seconds),
    )


def ablation_words(plan: Plan, found: Sequence[Outcome]) -> str:
    """The table for the terminal, with what its columns mean."""
    rows = lines(found)
    return "\n".join([table(HEADINGS, [_cells(row) for row in rows]), "", *_notes(plan, rows)])


def ablation_markdown(plan: Plan, found: Sequence[Outcome]) -> str:
    """The same table as Markdown, and the best so far after each measurement."""
    rows = lines(found)
    config = plan.config
    parts = [
        f"# {plan.network}: {goal_words(plan.goal)}",
        f"Data: {plan.data}. {config.train.images:,} training samples and {config.search.cycles} cycles for each run; seeds "
        f"{', '.join(map(str, plan.seeds))}. {_end(plan)}",
        outcome_table(found),
        *_notes(plan, rows),
        "## Best so far\nPoints lost by the best file within the limit, after each measurement.",
        _curves(found),
    ]
    return "\n\n".join(parts) + "\n"


def outcome_table(found: Sequence[Outcome]) -> str:
    """The table alone, as Markdown."""
    return markdown(HEADINGS, [_cells(row) for row in lines(found)])


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    body = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in body)


def _end(plan: Plan) -> str:
    if plan.config.train.final:
        return "Each run ends with its long fine-tune."
    return "No final fine-tune: what counts is the best measurement of each search."


def _notes(plan: Plan, rows: Sequence[Line]) -> list[str]:
    notes = [
        "lost: points on the search-validation split, mean over seeds; spread: its standard deviation; loss: mostly the task's "
        f"own, beyond the original's, by which networks are picked; against: points more than {METHOD} loses; better: seeds on "
        f"which it loses less than {METHOD}; found by: who proposed the best measurement; full and short: measurements with "
        "all training, and with less or none; time: of search and final fine-tune."
    ]
    tests = [f"{row.variant} {row.test_loss:+.2f}" for row in rows if row.test_loss is not None]
    if tests:
        notes.append("lost on the test split, against the original: " + ", ".join(tests))
    notes += [f"{row.variant} failed: {failure}" for row in rows for failure in row.failures]
    return notes


def _curves(found: Sequence[Outcome]) -> str:
    longest = max((len(run.curve) for run in found), default=0)
    headings = ("variant", "seed", *map(str, range(1, longest + 1)))
    body = []
    for run in found:
        cells = ["-" if drop is None else f"{drop:+.2f}" for drop in run.curve]
        body.append((run.variant, str(run.seed), *cells, *[""] * (longest - len(cells))))
    return markdown(headings, body)


def chart_rows(found: Sequence[Outcome]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows for the charts: one per run, and one per run and measurement; the best variant first."""
    order = [row.variant for row in lines(found)]
    good = sorted((run for run in found if run.failure is None), key=lambda run: order.index(run.variant))
    runs = [
        {
            "variant": run.variant,
            "seed": run.seed,
            "lost": run.drop_points,
            "bytes": run.size_bytes,
            "ratio": run.ratio,
            "minutes": run.seconds / 60,
        }
        for run in good
    ]
    curves = [
        {"variant": run.variant, "seed": run.seed, "measurement": number, "best": drop}
        for run in good
        for number, drop in enumerate(run.curve, start=1)
        if drop is not None
    ]
    return runs, curves
