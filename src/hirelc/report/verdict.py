"""The head of the page: three numbers, the goal, and the command that does it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hirelc.config import TrainConfig
from hirelc.report.reading import Json, Run
from hirelc.report.steps import Step, best_so_far, exceeded, picked
from hirelc.report.words import goal_words

UNKNOWN = "\u2013"  # an en dash, where a number is not known

_OPTIONS = {
    # where a setting lies in config.json -> the option that sets it, and its default
    ("seed",): ("--seed", 0),
    ("blocks",): ("--blocks", None),
    ("frame_bits",): ("--frame-bits", None),
    ("importance",): ("--importance", "fisher"),
    ("device",): ("--device", "cpu"),
    ("latency_batch",): ("--latency-batch", 1),
    ("latency_table",): ("--latency-table", None),
    ("search", "cycles"): ("--cycles", 4),
    ("search", "low_level_steps"): ("--agent-steps", 768),
    ("search", "min_keep"): ("--min-keep", 0.5),
    ("search", "strategy"): ("--strategy", "hirelc"),
    ("train", "images"): ("--images", 240_000),
    ("train", "batch_size"): ("--batch-size", TrainConfig.batch_size),
    ("train", "learning_rate"): ("--learning-rate", None),
    ("train", "precision"): ("--precision", "auto"),
}


@dataclass(frozen=True)
class Headline:
    """:param value: the number; an en dash when it is not known
    :param label: what it counts
    :param note: what it was measured on, and against what
    """

    value: str
    label: str
    note: str


@dataclass(frozen=True)
class Verdict:
    """:param met: None while the run has not finished
    :param sentence: the goal and what became of it
    :param command: reproduces the run; with words in capitals where the journal does not know
    :param command_note: what the reader must fill in; empty when nothing
    """

    headlines: tuple[Headline, Headline, Headline]
    goal: str
    met: bool | None
    sentence: str
    command: str
    command_note: str


def verdict(run: Run, measured: Sequence[Step]) -> Verdict:
    command, note = reproduction(run)
    if run.result is not None:
        sentence = _end(run.result) + _test_words(run)
        return Verdict(_final(run, run.result), goal_words(run.goal), _met(run.result), sentence, command, note)
    best = picked(run, measured) or best_so_far(run, measured)
    sentence = "The run has not finished: what follows is made of what it has left so far."
    if best is not None:
        sentence += f" The best of {len(measured)} measured policies {_against(run, best)}."
    return Verdict(_so_far(run, best), goal_words(run.goal), None, sentence, command, note)


def _met(result: Json) -> bool:
    return bool(result.get("met"))


def _end(result: Json) -> str:
    if _met(result):
        return "The goal is met, judged on the search-validation split by the network read back from its file."
    why = result.get("shortfall") or "the journal does not say why"
    return f"The goal is not met, judged on the search-validation split: {why}. The best policy found was delivered."


def _test_words(run: Run) -> str:
    """The goal is judged where the search may look; the test split may say otherwise, and then the reader is told."""
    result, most = run.result or {}, run.goal.get("max_drop")
    lost, tested = result.get("loss_points"), _row(result, "compressed").get("test") is not None
    if not tested or most is None or lost is None or lost <= most or not _met(result):
        return ""
    return (
        f" On the test split {lost:.2f} points are lost against the better of original and control, more than the {most:g} "
        "that the goal allows: the splits do not agree."
    )


def _against(run: Run, best: Step) -> str:
    most = run.goal.get("max_drop")
    short = exceeded(run.goal, run.original_bytes, best.measurement)
    if most is not None and best.drop > most:
        short.append("accuracy")
    return f"is short of the goal in {' and '.join(short)}" if short else "is within the goal"


def _row(result: Json, name: str) -> Json:
    return next((row for row in result.get("rows", []) if row.get("name") == name), {})


def _final(run: Run, result: Json) -> tuple[Headline, Headline, Headline]:
    original, control, compressed = (_row(result, name) for name in ("original", "control", "compressed"))
    split = "search-validation" if compressed.get("test") is None else "test"
    rivals = {"original": original.get(_field(split)), "control": control.get(_field(split))}
    known = {name: float(score) for name, score in rivals.items() if score is not None}
    better = max(known, key=lambda name: known[name], default="original")
    against = f"the {better}, the better of original and control" if control else "the original (there was no control)"
    lost = result.get("loss_points")
    return (
        _smaller(original.get("size_bytes"), compressed.get("size_bytes")),
        Headline(UNKNOWN if lost is None else f"{lost:.2f}", "points lost", f"against {against}, on the {split} split"),
        _faster(original, compressed),
    )


def _field(split: str) -> str:
    return "test" if split == "test" else "validation"


def _so_far(run: Run, best: Step | None) -> tuple[Headline, Headline, Headline]:
    if best is None:
        nothing = "nothing measured yet"
        return (
            Headline(UNKNOWN, "times smaller", nothing),
            Headline(UNKNOWN, "points lost", nothing),
            Headline(UNKNOWN, "times fewer MACs", nothing),
        )
    macs = Headline(UNKNOWN, "times fewer MACs", "the original's are written at the end of a run")
    original = run.event("network").get("macs")
    if original and best.macs:
        macs = _faster({"macs": original}, {"macs": best.macs, "latency_ms": None})
    lost = Headline(f"{best.drop:.2f}", "points lost", "best so far, against the original, on the search-validation split")
    return _smaller(run.original_bytes, best.size_bytes), lost, macs


def _smaller(original: int | None, size: int | None) -> Headline:
    if not original or not size:
        return Headline(UNKNOWN, "times smaller", "sizes not recorded")
    return Headline(f"{original / size:.2f}x", "smaller", f"{original:,} bytes to {size:,}, whole files")


def _faster(original: Json, compressed: Json) -> Headline:
    before, after = original.get("latency_ms"), compressed.get("latency_ms")
    if before and after:
        return Headline(f"{before / after:.2f}x", "faster", f"{before:.2f} ms to {after:.2f} ms")
    before, after = original.get("macs"), compressed.get("macs")
    if not before or not after:
        return Headline(UNKNOWN, "times fewer MACs", "not recorded")
    note = f"{before:,} to {after:,} multiply-accumulates a sample; no latency was measured"
    return Headline(f"{before / after:.2f}x", "fewer MACs", note)


def reproduction(run: Run) -> tuple[str, str]:
    """The command of the run, and a note when it had to be put together from its settings."""
    recorded = run.event("start").get("command")
    if recorded:
        return (recorded if isinstance(recorded, str) else shlex.join(map(str, recorded))), ""
    parts = ["hirelc", "compress", "--model", "MODULE:FACTORY", "--weights", "FILE", "--data", "DATA", "--out", "NEW_FOLDER"]
    for name in ("ratio", "max_drop", "max_bytes", "max_macs", "max_latency_ms"):
        if run.goal.get(name) is not None:
            value = run.goal[name]
            parts += [f"--{name.replace('_', '-')}", f"{value:.10g}" if isinstance(value, float) else str(value)]
    for where, (option, default) in _OPTIONS.items():
        value = _setting(run.config, where, default)
        if value != default:
            parts += [option, str(value)]
    if _setting(run.config, ("train", "control"), True) is False:
        parts.append("--no-control")
    return shlex.join(parts), (
        "The journal does not hold the command line; this one is put together from the settings. Fill in the words in "
        "capitals: network, weights and data."
    )


def _setting(config: Mapping[str, Any], where: Sequence[str], default: Any) -> Any:
    value: Any = config
    for key in where:
        value = value.get(key, default) if isinstance(value, Mapping) else default
    return value
