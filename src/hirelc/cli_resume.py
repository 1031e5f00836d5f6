"""The command that goes on with a run. Arguments in, words out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hirelc.cli_context import FOLDER, VERBOSE

if TYPE_CHECKING:
    from hirelc.progress import Reporter


def register(app: typer.Typer, reporter: Callable[[bool, bool, bool], Reporter]) -> None:
    """Adds the command to the application.

    :param reporter: quiet, verbose, plain -> where the words go
    """

    @app.command()
    def resume(
        context: typer.Context,
        run: Annotated[Path, typer.Argument(help="the folder of a run, as given to --out")],
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="only the result and warnings")] = False,
        plain: Annotated[bool, typer.Option("--plain", help="one line per event, as where no terminal is: for logs")] = False,
        verbose: Annotated[bool, typer.Option("--verbose", "-v", help="more lines; tracebacks")] = False,
    ) -> None:
        """Goes on with a run that was killed, interrupted or out of disk space; its end is that of one that was not.

        \b
        hirelc resume runs/mine

        Model, data, goal and settings are those that `hirelc compress` was given: type the command where you typed that
        one, for paths are taken as they were typed. At most the measurement under way is repeated. Other weights, other
        data or another version of hirelc are refused, by name. A run that has ended shows its result again.
        """
        context.meta[VERBOSE], context.meta[FOLDER] = verbose, run
        typer.echo(_resumed(run, reporter(quiet, verbose, plain)))


def _resumed(folder: Path, say: Reporter) -> str:
    from hirelc.inputs import evaluate_command, read_again
    from hirelc.resuming import ended, resume, stored_inputs
    from hirelc.words import result_words

    kept = stored_inputs(folder)
    result = ended(folder)
    if result is not None:
        say.line(f"{folder} has ended: nothing is left to do")
    else:
        network, task, splits = read_again(kept)
        say.line(f"data: {splits.description}")
        given = {"test": splits.test, "task": task, "reporter": say, "track": kept.get("track", [])}
        result = resume(folder, network, splits.train, splits.validation, **given)
    return result_words(result, evaluate_command(result.path, kept))
