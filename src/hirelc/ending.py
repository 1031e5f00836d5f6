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
from hirelc.candidates import Bench, Candidate, candidate_of
from hirelc.checkpoints import FINAL, FileCheckpoint, clear_checkpoints, save_candidate
from hirelc.compression.apply import CompressedNetwork
from hirelc.compression.prune import canonical
from hirelc.compression.rate import START
from hirelc.controls import make_control
from hirelc.latencies import TOLERANCE, Latency, final_latencies, stored_table
from hirelc.measure.evaluate import accuracy
from hirelc.measure.finetune import Diverged, Trained
from hirelc.policy import Choice, Measurement, Policy
from hirelc.progress import Stage
from hirelc.results import Result, Row
from hirelc.run import Run
from hirelc.search.archive import LATER

MODEL_FILE = "model.hirelc"
MOST_ROUNDED = 1.0  # points that rounding a file to its goal may cost when nothing comes after
LONG_ENOUGH = 0.02  # of the final fine-tune: what a shorter one pulled with is too much for it
# On the learning rate of the final fine-tune, which goes on with weights that were trained: with few samples, seen many times,
# a high one forgets more than it teaches.
MOST_FINAL_RATE, LEAST_FINAL_RATE, MANY_SAMPLES = 0.5, 0.3, 20_000


def finish(
    run: Run, bench: Bench, picked: Candidate, baseline: float, measurements: list[Measurement], search_seconds: float
) -> Result:
    """The picked candidate trained on and delivered, the control trained alike, the test split read.

    :param baseline: accuracy of the original on the search-validation split
    :param measurements: of the search, for the result
    """
    begun = time.monotonic()
    spec, compressed, images = bench.spec, bench.revive(picked), _final_images(run, bench)
    trained, data = _delivered(run, bench, compressed, images, picked)
    path = run.directory.write_bytes(MODEL_FILE, data)
    score, macs = bench.read_back(data).points, cost.macs(spec, compressed.policy)
    _note_final(run, bench, compressed, trained, data, accuracy=score, macs=macs)
    seconds = search_seconds + (time.monotonic() - begun if trained is None else trained.seconds)
    control, control_row = make_control(run, bench, images, lambda stage: _final(run, stage, "control"))
    network = build(read(data), copy.deepcopy(run.model))
    tests = _test(run, [run.model, control, network])
    if control_row is not None and control is not None:
        control_row = replace(control_row, test=tests[1])
    latency, expected = _latency(run, network, compressed.policy)
    before, after = (None, None) if latency is None else (latency.original_ms, latency.compressed_ms)
    ratio, parameters = spec.original_bytes / len(data), cost.parameters(spec, compressed.policy)
    whole = ("original", spec.original_bytes, 1.0, baseline, tests[0], cost.macs(spec), spec.parameters, 0.0)
    small = ("compressed", len(data), ratio, score, tests[2], macs, parameters, seconds)
    result = Result(
        folder=run.directory.path,
        path=path,
        goal=run.goal,
        policy=compressed.policy,
        original=Row(*whole, before, expected[0]),
        control=control_row,
        compressed=Row(*small, after, expected[1]),
        measurements=tuple(measurements),
        images_seen=bench.images_seen,
        shortfall=_shortfall(run, len(data), baseline - score, macs, latency),
    )
    run.directory.write_json("result.json", result)
    run.directory.journal("result", **{k: v for k, v in result.to_json().items() if k != "policy"})
    clear_checkpoints(run.directory.path)
    if result.shortfall:
        run.say.warn(f"short of the goal: {result.shortfall}; the best policy found was delivered")
    return result


def _delivered(
    run: Run, bench: Bench, compressed: CompressedNetwork, images: int, picked: Candidate
) -> tuple[Trained | None, bytes]:
    """The file, after the long fine-tune where there is one; else the candidate's own."""
    if run.config.calibrate_only or not run.config.train.final:
        return None, picked.data  # without more training, what was measured is what is delivered
    limit = run.goal.byte_limit(bench.spec.original_bytes)
    if limit is None or len(picked.data) > (1 + LATER) * limit:  # what is further away is not reached by training
        limit = len(picked.data)
    before = picked.trained
    known = before.strength if before is not None and before.images >= LONG_ENOUGH * images else None
    bench.strength = known or START
    trained, data = _fine_tuned(run, bench, compressed, limit, images, picked)
    bench.images_seen += 0 if trained is None else trained.images
    return trained, data


def _note_final(
    run: Run, bench: Bench, compressed: CompressedNetwork, trained: Trained | None, data: bytes, **found: Any
) -> None:
    """Keeps the delivered network as a candidate, and the event of it."""
    alone = dict(bench.rounded_alone)
    if alone:
        run.say.line("rounded without reconstruction: " + "; ".join(f"{name} ({why})" for name, why in alone.items()))
    if trained is not None:
        save_candidate(run.directory, FINAL, candidate_of(compressed, data, trained))
    policy = compressed.policy
    run.directory.journal_once("final", trained=trained, size_bytes=len(data), policy=policy, rounded_alone=alone, **found)


def _latency(run: Run, network: nn.Module, policy: Policy) -> tuple[Latency | None, tuple[float | None, float | None]]:
    """Milliseconds as measured, where the goal limits them, and as the table has them: original, compressed."""
    table, times = stored_table(run), final_latencies(run, network)
    if table is None:
        return None, (None, None)
    expected = table.predict(run.spec, policy)
    return None if times is None else Latency(table, *times, expected or 0.0), (table.original_ms, expected)


def _final_images(run: Run, bench: Bench) -> int:
    """What search and speed leave to the final fine-tune; where the time is limited, what there is time for."""
    decided = run.directory.event("time_final")
    if decided is not None:
        return int(decided["images"])
    if run.pace is None:
        return max(0, run.config.train.images - bench.images_seen)
    images = run.pace.final_images(run.config.train.batch_size)
    run.directory.journal("time_final", left=run.pace.budget.left, ratio=run.pace.ratio, images=images)
    return images


def _fine_tuned(
    run: Run, bench: Bench, compressed: CompressedNetwork, limit: int, images: int, picked: Candidate
) -> tuple[Trained | None, bytes]:
    """The delivered file. Where the long fine-tune diverges, the candidate as it was measured."""
    try:
        with run.say.stage("final fine-tune", images) as stage:
            trained, data = bench.finetune(compressed, limit, images, **_final(run, stage, "final"))
        return trained, bench.rounded(compressed, limit, MOST_ROUNDED) if len(data) > limit else data
    except Diverged as error:
        run.say.warn(f"the final fine-tune failed ({error}): the candidate is delivered as it was measured")
        run.directory.journal_once("final_failed", reason=str(error))
        return None, picked.data


def _final(run: Run, stage: Stage, name: str) -> dict[str, Any]:
    """The long fine-tune, the same for the compressed network and the control: data, order, schedule, teacher."""
    rate = run.config.train.final_rate
    if rate is None:
        rate = min(MOST_FINAL_RATE, max(LEAST_FINAL_RATE, run.train.samples / MANY_SAMPLES))
    checkpoint = FileCheckpoint(run.directory, name, run.say)
    return {"name": "final", "rate_factor": rate, "progress": stage.advance, "checkpoint": checkpoint}


def _test(run: Run, networks: list[nn.Module | None]) -> list[float | None]:
    """The test split, opened at the very end and read once per network."""
    if run.test is None:
        return [None] * len(networks)
    run.test.unseal()
    recorded = run.directory.event("test")
    if recorded is not None:
        return list(recorded["scores"])
    device = run.config.device
    with run.say.stage("test split", len(networks)) as stage:
        scores: list[float | None] = []
        for network in networks:
            score = None if network is None else accuracy(network.to(device), run.test, run.task, device=device)
            scores.append(score)
            stage.advance()
    run.directory.journal("test", readings=run.test.readings, scores=scores)
    return scores


def _shortfall(run: Run, size: int, drop: float, macs: int, latency: Latency | None) -> str | None:
    """Why the delivered file misses the goal, judged on the search-validation split; None when it does not."""
    goal, original, reasons = run.goal, run.spec.original_bytes, []
    limit = goal.byte_limit(original)
    if limit is not None and size > limit:
        reasons.append(f"the file has {size:,} bytes ({original / size:.2f}x) where {limit:,} were allowed")
    if goal.max_macs is not None and macs > goal.max_macs:
        reasons.append(f"{macs:,} MACs are left where {goal.max_macs:,.0f} were allowed{_hint(run, macs)}")
    if (
        goal.max_latency_ms is not None
        and latency is not None
        and latency.comparable_ms > (1 + TOLERANCE) * goal.max_latency_ms
    ):
        takes = f"a call takes {latency.comparable_ms:.3g} ms where {goal.max_latency_ms:.3g} were allowed"
        reasons.append(f"{takes} ({latency.words})")
    if goal.max_drop is not None and drop > goal.max_drop:
        reasons.append(f"{drop:.2f} points are lost on the search-validation split where {goal.max_drop:.2f} were allowed")
    return "; ".join(reasons) or None


def _hint(run: Run, macs: int) -> str:
    """Whether channels could have gone further at all."""
    keep = run.config.search.min_keep
    blocks = {name for block in run.spec.blocks for name in block.kernels}
    least = {k.name: Choice(keep_ratio=keep if k.name in blocks else 1.0) for k in run.spec.kernels}
    if macs > cost.macs(run.spec, canonical(run.spec, Policy.of(least))):
        return ""
    return f": the fewest that --min-keep {keep:g} can leave; a lower --min-keep may help"
