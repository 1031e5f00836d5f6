"""The commands that get more out of a run: its front of sizes, and another goal. Arguments in, words out."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from hirelc.cli_options import (
    BYTES_HELP,
    DROP_HELP,
    RATIO_HELP,
    Json,
    Out,
    Plain,
    Quiet,
    Run,
    Track,
    Verbose,
    WrittenRun,
    reporter,
)
from hirelc.errors import RunError
from hirelc.policy import Goal


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command()(front)
    app.command()(pick)


def front(
    run: WrittenRun,
    points: Annotated[int, typer.Option(help="different sizes that the front is to have", min=2)] = 8,
    images: Annotated[
        int | None, typer.Option(help="training samples for each new point; those of a measurement of the search", min=1)
    ] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="measure sizes that are missing")] = True,
    as_json: Json = False,
    quiet: Quiet = False,
    plain: Plain = False,
    verbose: Verbose = False,
) -> None:
    """What each size costs: the files of a run from 1/8 of the original to the smallest useful one.

    \b
    hirelc front runs/mine
    hirelc front runs/mine --points 12 --images 20000
    hirelc front runs/mine --no-measure --json

    Sizes that the run did not measure are measured now, by moving its policies: nothing is searched anew. They stay in
    the run's folder, each with its file. Accuracy is that on the search-validation split.
    """
    from hirelc.picking import extend_front
    from hirelc.points import read_points, trained_sizes
    from hirelc.words_front import front_words

    found = read_points(run)
    if measure and len(trained_sizes(found)) < points:
        from hirelc.inputs import read_again
        from hirelc.resuming import stored_inputs

        network, task, splits = read_again(stored_inputs(run))
        say = reporter(quiet, verbose, plain)
        found = extend_front(
            run, network, splits.train, splits.validation, points=points, task=task, reporter=say, images=images
        )
    typer.echo(json.dumps([point.to_json() for point in found], indent=2) if as_json else front_words(found, run))


def pick(
    run: Run,
    out: Out,
    ratio: Annotated[float | None, typer.Option(help=RATIO_HELP)] = None,
    max_drop: Annotated[float | None, typer.Option(help=DROP_HELP)] = None,
    max_bytes: Annotated[int | None, typer.Option(help=BYTES_HELP)] = None,
    max_macs: Annotated[float | None, typer.Option(help="multiply-accumulates of one sample, at most")] = None,
    images: Annotated[
        int | None, typer.Option(help="training samples of the fine-tune; those that the run's search left to it", min=1)
    ] = None,
    quiet: Quiet = False,
    plain: Plain = False,
    track: Track = None,
    verbose: Verbose = False,
) -> None:
    """Another goal from the same run: no new search, only the last fine-tune.

    \b
    hirelc pick runs/mine --ratio 24 --out runs/24x
    hirelc pick runs/mine --max-drop 0.2 --out runs/careful

    The run's candidate that is closest to the goal is moved to it and trained on; the control is trained alike, and the
    test split is read once per number.
    """
    from hirelc.inputs import evaluate_command, read_again
    from hirelc.picking import pick as run_pick
    from hirelc.resuming import stored_inputs
    from hirelc.words import result_words

    if out.resolve() == run.resolve():
        raise RunError("--out names the run itself: a pick is a run of its own, choose another folder")
    goal = Goal(ratio, max_drop, max_bytes, max_macs)
    kept = stored_inputs(run)
    network, task, splits = read_again(kept)
    result = run_pick(
        run,
        network,
        splits.train,
        splits.validation,
        goal,
        out,
        test=splits.test,
        task=task,
        reporter=reporter(quiet, verbose, plain),
        images=images,
        inputs=kept,
        track=track or (),
    )
    typer.echo(result_words(result, evaluate_command(result.path, kept)))
