"""The end of a run: long fine-tune, file, control, test split, result."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import Any

from torch import nn

from hirelc import cost
from hirelc.artifact.container import read
from hirelc.artifact.load import build
from hirelc.candidates import Bench, Candidate
from hirelc.measure.evaluate import accuracy
from hirelc.policy import Goal, Measurement
from hirelc.progress import Stage
from hirelc.results import Result, Row
from hirelc.run import Run

MODEL_FILE = "model.hirelc"
MANY_SAMPLES, LEAST_FINAL_RATE = 20_000, 0.3


def finish(
    run: Run, bench: Bench, picked: Candidate, baseline: float, measurements: list[Measurement], search_seconds: float
) -> Result:
    begun = time.monotonic()
    compressed = bench.revive(picked)
    images = max(0, run.config.train.images - bench.images_seen)
    trained, data = None, picked.data  # without more training, what was measured is what is delivered
    if run.config.train.final and not run.config.calibrate_only:
        limit = max(run.goal.byte_limit(bench.spec.original_bytes) or 0, len(picked.data))
        with run.say.stage("final fine-tune", images) as stage:
            trained, data = bench.finetune(compressed, limit, images, **_final(run, stage))
        bench.images_seen += trained.images
    alone = dict(bench.rounded_alone)
    if alone:
        run.say.line("rounded without reconstruction: " + "; ".join(f"{name} ({why})" for name, why in alone.items()))
    path = run.directory.write_bytes(MODEL_FILE, data)
    score = bench.read_back_accuracy(data)
    run.directory.journal(
        "final", trained=trained, size_bytes=len(data), accuracy=score, policy=compressed.policy, rounded_alone=alone
    )
    seconds = time.monotonic() - begun + search_seconds
    spec = bench.spec
    control, control_row = _control(run, bench, images)
    tests = _test(run, [run.model, control, build(read(data), copy.deepcopy(run.model))])
    result = Result(
        folder=run.directory.path,
        path=path,
        goal=run.goal,
        policy=compressed.policy,
        original=Row("original", spec.original_bytes, 1.0, baseline, tests[0], cost.macs(spec), spec.parameters, 0.0),
        control=None if control_row is None else replace(control_row, test=tests[1]),
        compressed=Row(
            "compressed",
            len(data),
            spec.original_bytes / len(data),
            score,
            tests[2],
            cost.macs(spec, compressed.policy),
            cost.parameters(spec, compressed.policy),
            seconds,
        ),
        measurements=tuple(measurements),
        images_seen=bench.images_seen,
        shortfall=_shortfall(run.goal, spec.original_bytes, len(data), baseline - score),
    )
    run.directory.write_json("result.json", result)
    run.directory.journal("result", **{k: v for k, v in result.to_json().items() if k != "policy"})
    if result.shortfall:
        run.say.warn(f"short of the goal: {result.shortfall}; the best policy found was delivered")
    return result


def _final(run: Run, stage: Stage) -> dict[str, Any]:
    """The long fine-tune, the same for the compressed network and the control: data, order, schedule, teacher."""
    rate = run.config.train.final_rate
    if rate is None:  # few samples, seen many times at a high rate: more is forgotten than learned
        rate = min(1.0, max(LEAST_FINAL_RATE, run.train.samples / MANY_SAMPLES))
    return {"name": "final", "rate_factor": rate, "progress": stage.advance}


def _control(run: Run, bench: Bench, images: int) -> tuple[nn.Module | None, Row | None]:
    """The original given the same final fine-tune, uncompressed: an accuracy gain that it has too is not ours."""
    if run.config.calibrate_only and run.config.train.control:
        run.say.line("no control: nothing was trained, so the original is all there is to compare with")
    if run.config.calibrate_only or not (run.config.train.control and run.config.train.final):
        return None, None
    control = copy.deepcopy(run.model)
    with run.say.stage("control: the original, trained on", images) as stage:
        trained = bench.trainer.finetune(control, images, **_final(run, stage))
    score = accuracy(control, run.validation, run.task, device=run.config.device)
    run.directory.journal("control", trained=trained, accuracy=score)
    spec = bench.spec
    row = Row("control", spec.original_bytes, 1.0, score, None, cost.macs(spec), spec.parameters, trained.seconds)
    return control, row


def _test(run: Run, networks: list[nn.Module | None]) -> list[float | None]:
    """The test split, opened at the very end and read once per network."""
    if run.test is None:
        return [None] * len(networks)
    run.test.unseal()
    device = run.config.device
    with run.say.stage("test split", len(networks)) as stage:
        scores: list[float | None] = []
        for network in networks:
            score = None if network is None else accuracy(network.to(device), run.test, run.task, device=device)
            scores.append(score)
            stage.advance()
    run.directory.journal("test", readings=run.test.readings, scores=scores)
    return scores


def _shortfall(goal: Goal, original: int, size: int, drop: float) -> str | None:
    """Why the delivered file misses the goal, judged on the search-validation split; None when it does not."""
    reasons = []
    limit = goal.byte_limit(original)
    if limit is not None and size > limit:
        reasons.append(f"the file has {size:,} bytes ({original / size:.2f}x) where {limit:,} were allowed")
    if goal.max_drop is not None and drop > goal.max_drop:
        reasons.append(f"{drop:.2f} points are lost on the search-validation split where {goal.max_drop:.2f} were allowed")
    return "; ".join(reasons) or None
