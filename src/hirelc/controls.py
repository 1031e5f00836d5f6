"""The control: the original given the same final fine-tune. A pick takes over that of its run, where it is the same."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from hirelc import cost
from hirelc.candidates import Bench
from hirelc.measure.evaluate import accuracy
from hirelc.measure.finetune import Diverged
from hirelc.progress import Stage
from hirelc.results import Result, Row
from hirelc.run import Run
from hirelc.store import read_journal


def make_control(
    run: Run, bench: Bench, images: int, final: Callable[[Stage], Mapping[str, Any]]
) -> tuple[nn.Module | None, Row | None]:
    """The control and what is known of it: an accuracy gain that it has too is not ours.

    :param final: settings of the final fine-tune, which are the control's too
    :returns: no network where there is none, or where it was trained and tested in the run that this one was picked from
    """
    if run.config.calibrate_only and run.config.train.control:
        run.say.line("no control: nothing was trained, so the original is all there is to compare with")
    if run.config.calibrate_only or not (run.config.train.control and run.config.train.final):
        return None, None
    known = _known(run, images)
    if known is not None:
        folder, row, record = known
        run.say.line(f"control: the one of {folder}, which got the same fine-tune")
        run.directory.journal_once("control", trained=record, accuracy=row.validation, planned=images, taken_from=str(folder))
        return None, row
    control = copy.deepcopy(run.model)
    try:
        with run.say.stage("control: the original, trained on", images) as stage:
            trained = bench.trainer.finetune(control, images, **final(stage))
    except Diverged as error:
        run.say.warn(f"no control: its training failed ({error})")
        return None, None
    score = accuracy(control, run.validation, run.task, device=run.config.device)
    run.directory.journal_once("control", trained=trained, accuracy=score, planned=images)
    spec = bench.spec
    row = Row("control", spec.original_bytes, 1.0, score, None, cost.macs(spec), spec.parameters, trained.seconds)
    return control, row


def planned_images(folder: Path) -> int | None:
    """Training samples that a run gave its control, and its final fine-tune; None where it has no control."""
    found = _control_event(folder)
    return None if found is None else found.get("planned")


def _known(run: Run, images: int) -> tuple[Path, Row, Mapping[str, Any]] | None:
    """The folder, the row and the training of a control that differs in nothing: seed, data and settings of a pick are those
    of its run, which `pick` has checked."""
    source = run.source
    event = None if source is None else _control_event(source[0])
    if source is None or event is None or event.get("planned") != images or not (source[0] / "result.json").is_file():
        return None
    data = json.loads((source[0] / "result.json").read_text())
    row = Result.from_json(source[0], source[0] / "model.hirelc", data, ()).control
    if row is None or (run.test is not None and row.test is None):
        return None
    return source[0], row, event["trained"]


def _control_event(folder: Path) -> dict[str, Any] | None:
    return next((event for event in read_journal(folder) if event["event"] == "control"), None)
