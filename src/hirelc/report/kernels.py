"""Kernel by kernel: what was chosen, and what it costs in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hirelc.artifact.inspect import FileView, open_file
from hirelc.errors import FormatError
from hirelc.report.reading import CANDIDATES, MODEL, Json, Run
from hirelc.report.steps import Step, best_so_far, choices_of, picked


@dataclass(frozen=True)
class KernelRow:
    """One kernel of the shipped file, or of the best candidate while there is none.

    :param block: None for a kernel of the frame
    :param shape: after pruning; None where no file could be read, as the numbers of bytes
    :param sensitivity: Fisher, from 0 to 1; None before it was measured
    """

    name: str
    block: str | None
    bits: int
    keep_ratio: float
    number_type: str
    granularity: str
    sensitivity: float | None
    shape: tuple[int, ...] | None = None
    weights: int | None = None
    size_bytes: int | None = None
    bits_per_weight: float | None = None


@dataclass(frozen=True)
class Kernels:
    """:param origin: which file or policy the rows describe, in words
    :param other_bytes: of the file, outside the kernels: norms, biases, masks, headers; None without a file
    :param parts: bytes of what other_bytes is made of, by the names that the file has for it
    :param problem: why there are no bytes, in a sentence; None when there are
    """

    rows: tuple[KernelRow, ...]
    origin: str
    other_bytes: int | None
    problem: str | None
    parts: Mapping[str, float] = field(default_factory=dict)


def kernels(run: Run, measured: Sequence[Step]) -> Kernels:
    """The kernels of the final file; of the picked or best candidate before that."""
    file, choices, origin = _subject(run, measured)
    if file is None:
        return Kernels((), origin, None, "No file has been written yet, so there are no kernels to show.")
    try:
        view = open_file(file)
    except (FormatError, OSError) as error:
        # the page may be handed on: it names files of the run, not where the run lay
        reason = str(error).replace(str(file), file.name) if file.exists() else "it is not there"
        problem = f"{file.relative_to(run.folder)} cannot be read ({reason}), so the bytes of each kernel are not known."
        return Kernels(tuple(_row(run, name, choice) for name, choice in choices.items()), origin, None, problem)
    rows = tuple(_viewed(run, view, name, choices) for name in view.kernels)
    others = view.size_bytes - sum(kernel.size_bytes for kernel in view.kernels.values())
    parts = {name: size for name, size in view.parts.items() if name not in ("codes", "scales") and size > 0}
    return Kernels(rows, origin, others, None, parts)


def _subject(run: Run, measured: Sequence[Step]) -> tuple[Path | None, Mapping[str, Json], str]:
    if (run.folder / MODEL).exists():
        final = choices_of(run.event("final").get("policy")) or choices_of((run.result or {}).get("policy"))
        return run.folder / MODEL, final, f"the file {MODEL}"
    step = picked(run, measured) or best_so_far(run, measured)
    if step is None:
        return None, {}, "nothing yet"
    file = run.folder / CANDIDATES / f"{step.number:03d}.hirelc"
    return file, step.choices, f"the best candidate so far, {file.relative_to(run.folder)}"


def _row(run: Run, name: str, choice: Json) -> KernelRow:
    block = next((block for block, names in run.blocks().items() if name in names), None)
    return KernelRow(
        name=name,
        block=block,
        bits=int(choice["bits"]),
        keep_ratio=float(choice["keep_ratio"]),
        number_type=str(choice["number_type"]),
        granularity=str(choice["granularity"]),
        sensitivity=run.event("sensitivity").get("kernels", {}).get(name),
    )


def _viewed(run: Run, view: FileView, name: str, choices: Mapping[str, Json]) -> KernelRow:
    kernel = view.kernels[name]
    decided = {
        "bits": kernel.choice.bits,
        # the file knows what is left, the policy what that is a part of
        "keep_ratio": choices.get(name, {}).get("keep_ratio", kernel.choice.keep_ratio),
        "number_type": kernel.choice.number_type.value,
        "granularity": kernel.choice.granularity.value,
    }
    return replace(
        _row(run, name, decided),
        shape=kernel.shape,
        weights=kernel.weights,
        size_bytes=kernel.size_bytes,
        bits_per_weight=kernel.bits_per_weight,
    )
