"""A run that died goes on. What a folder holds decides on everything; what is given must be what the run began with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from hirelc.checkpoints import clear_checkpoints
from hirelc.config import Config
from hirelc.ending import MODEL_FILE
from hirelc.errors import RunError
from hirelc.fingerprint import FINGERPRINT, differences, fingerprint
from hirelc.journal import ADDED
from hirelc.pipeline import carry_out, command_line, prepare
from hirelc.policy import Goal, Measurement
from hirelc.progress import Reporter, RichReporter
from hirelc.replaying import environment_changes
from hirelc.results import Result
from hirelc.store import INPUTS, JOURNAL, RunDirectory, has_begun, locked, read_journal
from hirelc.task import CLASSIFICATION, Task
from hirelc.timing import TimeBudget
from hirelc.tracking.choosing import trackers, trackers_of
from hirelc.version import __version__


def resume(
    run: str | Path,
    model: nn.Module,
    train: object,
    val: object,
    *,
    test: object | None = None,
    task: Task = CLASSIFICATION,
    reporter: Reporter | None = None,
    track: Sequence[str] = (),
) -> Result:
    """Goes on with a run that was killed, interrupted or out of disk, and ends as if it had not been.

    Goal and settings are those that the run began with. What is dear is read from the folder: measured candidates, and
    the long fine-tune from its last checkpoint. At most the measurement under way is repeated.

    >>> hirelc.resume("runs/mine", net, train, val).path.as_posix()  # it has ended: nothing is left to do
    'runs/mine/model.hirelc'

    :param run: the run's folder
    :param model: as `compress` was given it, and so are `train`, `val`, `test` and `task`
    :param track: as of `compress`; without it, those that the run began with
    :raises RunError: there is no run, another process writes to it, or something given is not what the run began with
    :raises HirelcError: as `compress`
    """
    folder, say = Path(run), reporter or RichReporter()
    then = stored(folder)
    found = ended(folder)
    if found is not None:
        say.line(f"{folder} has ended: nothing is left to do")
        return found
    followers = trackers(track, say) if track else trackers_of(folder, say)
    config = Config.from_json(then["config"])
    data = {"train": train, "val": val, "test": test}
    with locked(folder):
        make = prepare(model, data, Goal(**then["goal"]), config, task, say, searches=False)
        made = make(RunDirectory.open(folder))
        changes = differences(then, fingerprint(made)) + _changed_config(made.directory, then)
        if changes:
            raise RunError(f"{folder} was begun with something else: {'; '.join(changes)}: give what it began with")
        for change in environment_changes(made):
            say.warn(f"another environment than the run began in: {change}; its end may differ")
        spent = seconds_of(made.directory.events)
        measured = sum(event["event"] == "measurement" for event in made.directory.events)
        made.directory.journal("resumed", command=command_line(), measurements=measured)
        say.line(f"{folder}: {measured} measurement{'s' if measured != 1 else ''} found, going on")
        budget = None if config.train.seconds is None else TimeBudget(config.train.seconds, before=spent)
        made.directory.observers += followers
        return carry_out(made, budget)


def stored(folder: Path) -> dict[str, Any]:
    """The fingerprint of a run.

    :raises RunError: the folder holds none that this version can go on with
    """
    if not (folder / JOURNAL).is_file():
        raise RunError(f"{folder} holds no run (no {JOURNAL}): name the folder of a run, as given to --out")
    if not has_begun(folder):
        raise RunError(f"{folder} holds a run that died before it began: start it again, the folder can stay")
    then = _json(folder / FINGERPRINT, "the run was begun by a hirelc that could not resume")
    if then.get("hirelc") != __version__:
        raise RunError(
            f"{folder} was begun by hirelc {then.get('hirelc')}, and this is {__version__}: install that one to go on"
        )
    return then


def stored_inputs(folder: Path) -> dict[str, Any]:
    """What the command was given for model and data.

    :raises RunError: there is no such run, or it was begun in Python
    """
    stored(folder)
    return _json(folder / INPUTS, "the run was begun in Python: hirelc.resume(folder, model, train, val) goes on with it")


def ended(folder: Path) -> Result | None:
    """The result of a run that has ended; None while something is left to do."""
    events = read_journal(folder)
    path = folder / MODEL_FILE
    if not any(event["event"] == "result" for event in events) or not path.is_file():
        return None
    measured = [Measurement(**event["measurement"]) for event in events if event["event"] == "measurement"]
    try:
        result = Result.from_json(folder, path, json.loads((folder / "result.json").read_text()), measured)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    clear_checkpoints(folder)
    return result


def seconds_of(events: list[dict[str, Any]]) -> float:
    """Wall time between the events of a journal, breaks left out, and what `hirelc front` took."""
    moments = [(datetime.fromisoformat(event["time"]), event["event"]) for event in events]
    others = ("resumed", ADDED)
    return sum((after - before).total_seconds() for (before, _), (after, kind) in pairwise(moments) if kind not in others)


def _changed_config(directory: RunDirectory, then: dict[str, Any]) -> list[str]:
    if directory.event("time_plan") is not None:  # a plan of its time has put its numbers in
        return []
    now = _json(directory.path / "config.json", "restore it from a copy")
    changed = [name for name in then["config"] if now.get(name) != then["config"][name]]
    return [f"config.json was changed since ({', '.join(changed)})"] if changed else []


def _json(file: Path, otherwise: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise RunError(f"{file} cannot be read ({error.strerror}): {otherwise}") from error
    except ValueError as error:
        raise RunError(f"{file} is damaged: restore it from a copy") from error
    if not isinstance(found, dict):
        raise RunError(f"{file} is damaged: restore it from a copy")
    return found
