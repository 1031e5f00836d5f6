"""The command that goes on with a run. Arguments in, words out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hirelc.cli_options import Plain, Quiet, Verbose, WrittenRun, reporter

if TYPE_CHECKING:
    from hirelc.progress import Reporter


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(resume)


def resume(run: WrittenRun, quiet: Quiet = False, plain: Plain = False, verbose: Verbose = False) -> None:
    """Goes on with a run that was killed, interrupted or out of disk space; its end is that of one that was not.

    \b
    hirelc resume runs/mine

    Model, data, goal and settings are those that `hirelc compress` was given: type the command where you typed that
    one, for paths are taken as they were typed. At most the measurement under way is repeated. Other weights, other
    data or another version of hirelc are refused, by name. A run that has ended shows its result again.
    """
    typer.echo(_resumed(run, reporter(quiet, verbose, plain)))


def _resumed(folder: Path, say: Reporter) -> str:
    from hirelc.inputs import evaluate_command, read_again
    from hirelc.resuming import ended, stored_inputs
    from hirelc.resuming import resume as go_on
    from hirelc.store import locked
    from hirelc.words import result_words

    kept = stored_inputs(folder)
    result = ended(folder)
    if result is not None:
        say.line(f"{folder} has ended: nothing is left to do")
    else:
        with locked(folder):  # whoever else writes there is named before the data is read
            pass
        network, task, splits = read_again(kept)
        say.line(f"data: {splits.description}")
        given = {"test": splits.test, "task": task, "reporter": say, "track": kept.get("track", [])}
        result = go_on(folder, network, splits.train, splits.validation, **given)
    return result_words(result, evaluate_command(result.path, kept))
