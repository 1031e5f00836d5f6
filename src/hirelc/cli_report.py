"""The commands that tell about runs: report, compare, status. Arguments in, words out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hirelc.cli_options import Json, Run


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command()(report)
    app.command()(compare)
    app.command()(status)


def report(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="the page's file; RUN/report.html when not given")] = None,
    figures: Annotated[Path | None, typer.Option(help="write the charts as SVG and PNG into this folder instead")] = None,
) -> None:
    """Writes one self-contained HTML page about a run, finished or not. Needs the extra hirelc\\[report].

    \b
    hirelc report runs/mine
    hirelc report runs/mine --figures paper/figures
    """
    from hirelc.report.figures import write_figures
    from hirelc.report.page import write_report

    if figures is None:
        typer.echo(write_report(run, out))
        return
    if out is not None:
        from hirelc.errors import RunError

        raise RunError("--out names a page and --figures a folder of charts: give one of them")
    for path in write_figures(run, figures):
        typer.echo(path)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="folders of two runs or more")],
    out: Annotated[Path, typer.Option(help="the page's file")] = Path("compare.html"),
) -> None:
    """Puts several runs on one page: a table and a common front. Needs the extra hirelc\\[report].

    \b
    hirelc compare runs/a runs/b --out compare.html
    """
    from hirelc.report.compare import write_comparison

    typer.echo(write_comparison(runs, out))


def status(
    run: Run,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="go on until the run has ended; Ctrl-C leaves it alone")] = False,
) -> None:
    """Tells how a run stands: what it does, cycle, best so far against the goal, time left. Also while it runs.

    \b
    hirelc status runs/mine
    hirelc status runs/mine --watch
    """
    from hirelc.report.status import status as read_status
    from hirelc.report.status import status_words

    if not watch:
        found = read_status(run, datetime.now(UTC))
        typer.echo(json.dumps(found.to_json(), indent=2) if as_json else status_words(found))
        return
    if as_json:
        from hirelc.errors import RunError

        raise RunError("--watch draws for people and --json is for programs: give one of them")
    from hirelc.live.watch import watch as watch_run

    watch_run(run)
