"""Tables and sentences about a result, a network and an evaluation: plain text, for the command line and for documents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hirelc.artifact.inspect import FileView, KernelView
from hirelc.evaluation import Evaluation
from hirelc.network.spec import Coupling, Kernel, NetworkSpec, Pruning
from hirelc.policy import Goal
from hirelc.results import Result, Row
from hirelc.store import JOURNAL, has_begun, read_journal

HEADINGS = ("", "file bytes", "ratio", "test acc. %", "validation %", "MACs", "parameters", "wall time")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Columns as wide as they need to be; the first is aligned left, the others right."""
    lines = [tuple(headings), *map(tuple, rows)] if any(headings) else [tuple(row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    texts = [
        "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
        for cells in lines
    ]
    if any(headings):
        texts.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(indent + text.rstrip() for text in texts)


def count(number: float) -> str:
    """Three digits and a unit: 40.8 M."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:#.3g}".rstrip(".") + f" {name}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """3 min 05 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def result_table(result: Result) -> str:
    """Original, control and compressed, side by side."""
    timed = any(row.latency_ms is not None for row in result.rows)
    headings = (*HEADINGS, "ms a call", "predicted") if timed else HEADINGS
    return table(headings, [_cells(row) + (_latency(row) if timed else ()) for row in result.rows])


def _latency(row: Row) -> tuple[str, ...]:
    """What was measured at the end, and what the table says: of the original, when the table was made."""
    return tuple("-" if value is None else f"{value:.3f}" for value in (row.latency_ms, row.predicted_ms))


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.size_bytes:,}",
        f"{row.ratio:.2f}x",
        "-" if row.test is None else f"{row.test:.2f}",
        f"{row.validation:.2f}",
        count(row.macs),
        f"{row.parameters:,}",
        duration(row.seconds) if row.seconds else "-",
    )


def result_words(result: Result, next_command: str | None = None) -> str:
    """The whole end of a run: table, loss, whether the goal is met, where the file lies, what to type next."""
    lines = [
        result_table(result),
        "",
        *_failed(result),
        f"lost   {loss(result)}",
        f"goal   {goal_words(result.goal)}: {_met(result)}",
    ]
    lines += [f"file   {result.path}", f"run    {result.folder} (journal.jsonl, result.json, candidates/)"]
    return "\n".join(lines + ([f"next   {next_command}"] if next_command else []))


def _failed(result: Result) -> list[str]:
    """How many candidates failed, and why the first did."""
    reasons = [m.failure for m in result.measurements if m.failure is not None]
    if not reasons:
        return []
    return [f"failed {len(reasons)} of {len(result.measurements)} candidates, the first: {' '.join(reasons[0].split())}"]


def loss(result: Result) -> str:
    """Points lost, on which split, and against what."""
    rivals = [row for row in result.rows if row is not result.compressed]
    on_test = result.compressed.test is not None
    best = max(rivals, key=lambda row: (row.test or 0.0) if on_test else row.validation)
    split = "test split" if on_test else "search-validation split (no test split was given)"
    better = "the better of original and control, here the " if len(rivals) > 1 else "the "
    return f"{result.loss_points:.2f} points on the {split}, against {better}{best.name}"


def _met(result: Result) -> str:
    if result.shortfall is None:
        return "met" + (" (on the search-validation split, against the original)" if result.goal.max_drop is not None else "")
    return f"NOT MET, short of the goal: {result.shortfall}; the file holds the closest policy found"


def goal_words(goal: Goal) -> str:
    """The limits, in words."""
    parts = []
    if goal.ratio is not None:
        parts.append(f"at least {goal.ratio:g}x smaller")
    if goal.max_bytes is not None:
        parts.append(f"at most {goal.max_bytes:,} bytes")
    if goal.max_macs is not None:
        parts.append(f"at most {count(goal.max_macs)} MACs")
    if goal.max_latency_ms is not None:
        parts.append(f"at most {goal.max_latency_ms:g} ms a call")
    if goal.max_drop is not None:
        parts.append(f"at most {goal.max_drop:g} points lost")
    return ", ".join(parts)


def kept_words(folder: Path) -> str:
    """What an interrupted run leaves in its folder, or in the folders inside it."""
    runs = [path.parent for path in (folder / JOURNAL, *sorted(folder.glob(f"*/{JOURNAL}"))) if path.is_file()]
    if not runs:
        return "nothing was written yet"
    parts = []
    for run in runs:
        files = len(list(run.glob("candidates/*.hirelc")))
        candidates = f", {files} measured candidate{'s' if files != 1 else ''} in {run / 'candidates'}" if files else ""
        ended = f", the finished {run / 'model.hirelc'}" if (run / "model.hirelc").is_file() else ""
        parts.append(f"{run} keeps its {JOURNAL}{candidates}{ended}")
    readable = any((run / "candidates").is_dir() for run in runs)
    unfinished = [run for run in runs if not any(event["event"] == "result" for event in read_journal(run))]
    parts += [f"`hirelc resume {run}` goes on" for run in unfinished if has_begun(run)]
    return "; ".join(parts) + (" (`hirelc evaluate` reads each .hirelc file)" if readable else "")


def evaluation_words(found: Evaluation) -> str:
    """A table of the compressed network, and of the original where that is known."""
    rows = []
    if found.original is not None:
        rows.append(("original", f"{found.original_bytes:,}", "1.00x", f"{found.original:.2f}"))
    rows.append(("compressed", f"{found.size_bytes:,}", f"{found.ratio:.2f}x", f"{found.accuracy:.2f}"))
    split = "search-validation" if found.split == "validation" else found.split
    text = table(("", "file bytes", "ratio", "accuracy %"), rows)
    text += f"\n\n{found.samples:,} samples of the {split} split"
    if found.drop_points is not None:
        text += f"; {found.drop_points:.2f} points lost against the original"
    return text


def network_words(spec: NetworkSpec, title: str, origin: str) -> str:
    """Blocks, kernels, coupled dimensions, frame, and what will not be touched and why."""
    macs = sum(kernel.macs for kernel in spec.kernels)
    parts = [
        f"{title}: {spec.parameters:,} parameters, {len(spec.kernels)} kernels; {len(spec.blocks)} blocks and a frame of "
        f"{len(spec.frame)} kernels; fp32 file {spec.original_bytes:,} bytes; {count(macs)} MACs a sample (input: {origin})"
    ]
    for block in spec.blocks:
        kernels = [spec.by_name[name] for name in block.kernels]
        parts.append(f"block {block.name}\n{_kernel_table(spec, kernels, block.name + '.')}")
    if spec.frame:
        parts.append(f"frame (outside any block: high precision, all channels kept)\n{_kernel_table(spec, spec.frame, '')}")
    if spec.couplings:
        lines = [_coupling_words(spec, number, coupling) for number, coupling in enumerate(spec.couplings, start=1)]
        parts.append("coupled dimensions (each group loses the same channels everywhere)\n" + "\n".join(lines))
    parts.append(_untouched_words(spec))
    if spec.notes:
        parts.append("notes\n" + "\n".join(f"  {note}" for note in spec.notes))
    return "\n\n".join(parts)


def _kernel_table(spec: NetworkSpec, kernels: Sequence[Kernel], prefix: str) -> str:
    names = [kernel.name.removeprefix(prefix) for kernel in kernels]
    rows = [(name, shape_words(k.shape), count(k.macs)) for name, k in zip(names, kernels, strict=True)]
    text = table(("kernel", "shape", "MACs"), rows, indent="  ").splitlines()
    width = max(len(line) for line in text)
    ends = ["channels", "--------", *(_channel_words(spec, kernel) for kernel in kernels)]
    return "\n".join(f"{line.ljust(width)}  {end}" for line, end in zip(text, ends, strict=True))


def _channel_words(spec: NetworkSpec, kernel: Kernel) -> str:
    if kernel.pruning is Pruning.COUPLED:
        index = spec.coupling_of[kernel.name]
        return f"coupled: {_units(spec.couplings[index])}, group {index + 1}"
    if kernel.pruning is Pruning.ROWS:
        return f"rows: {kernel.channels} of its own, scattered back" + (f": {kernel.reason}" if kernel.reason else "")
    return f"none: {kernel.reason}"


def _coupling_words(spec: NetworkSpec, number: int, coupling: Coupling) -> str:
    made_by = {member.tensor.rpartition(".")[0] for member in coupling.members if member.produces}
    makers: dict[str, None] = {}
    others: dict[str, None] = {}
    for member in coupling.members:
        module = member.tensor.rpartition(".")[0]
        # a kernel with the dimension concerned; of a norm, or a bias, its module says enough
        if member.tensor in spec.by_name:
            (makers if member.produces else others)[f"{member.tensor}[{member.dim}]"] = None
        elif module not in made_by:
            others[module] = None
    others |= dict.fromkeys(f"{change.module}.{change.attribute}" for change in coupling.attributes)
    along = f"; with them go {', '.join(others)}" if others else ""
    return f"  group {number}: {_units(coupling)}, made by {', '.join(makers)}{along}"


def _units(coupling: Coupling) -> str:
    width = max((len(m.starts) * m.width for m in coupling.members if m.produces), default=1)
    return f"{coupling.units} channels" if width == 1 else f"{coupling.units} units of {width} channels"


def _untouched_words(spec: NetworkSpec) -> str:
    # an entry may be a tensor that no reason was given for because it is too small for one: norms, biases, buffers
    reasons = {entry.name: entry.reason for entry in spec.untouched}
    lines = [f"  {entry.name} {shape_words(entry.shape)}: {entry.reason}" for entry in spec.untouched]
    rest = [entry for entry in spec.rest if entry.name not in reasons]
    numbers = sum(math.prod(entry.shape) for entry in rest)
    if rest:
        lines.append(
            f"  {len(rest)} norms, biases and buffers, {numbers:,} numbers: coded in steps of a fraction of their spread "
            "(BatchNorm folded into two numbers a channel)"
        )
    return "will not be touched\n" + ("\n".join(lines) if lines else "  nothing")


def shape_words(shape: Sequence[int]) -> str:
    """64x32x3x3."""
    return "x".join(map(str, shape)) or "scalar"


def network_json(spec: NetworkSpec, title: str, origin: str) -> dict[str, Any]:
    """The same as `network_words`, for programs."""

    def kernel(k: Kernel) -> dict[str, Any]:
        return {
            "name": k.name,
            "kind": k.kind,
            "shape": k.shape,
            "macs": k.macs,
            "pruning": k.pruning.value,
            "coupling": spec.coupling_of.get(k.name),
            "reason": k.reason,
        }

    return {
        "model": title,
        "input": origin,
        "parameters": spec.parameters,
        "original_bytes": spec.original_bytes,
        "macs": sum(k.macs for k in spec.kernels),
        "blocks": [{"name": b.name, "kernels": [kernel(spec.by_name[name]) for name in b.kernels]} for b in spec.blocks],
        "frame": [kernel(k) for k in spec.frame],
        "couplings": [asdict(coupling) for coupling in spec.couplings],
        "untouched": [asdict(entry) for entry in spec.untouched],
        "rest": [asdict(entry) for entry in spec.rest],
        "notes": spec.notes,
    }


def file_json(view: FileView) -> dict[str, Any]:
    """What `hirelc show --json` prints."""
    return {
        "size_bytes": view.size_bytes,
        "entropy_bytes": round(view.entropy_bits / 8),
        "parts": {part: round(size) for part, size in view.parts.items()},
        "activations": [[site.module, site.side, site.scale, site.zero_point] for site in view.activations],
        "kernels": [
            {
                "name": kernel.name,
                "shape": kernel.shape,
                "channels_kept": _channels(kernel),
                "bits": kernel.choice.bits,
                "number_type": kernel.choice.number_type.value,
                "granularity": kernel.choice.granularity.value,
                "size_bytes": kernel.size_bytes,
                "bits_per_weight": round(kernel.bits_per_weight, 4),
                "entropy": round(kernel.entropy, 4),
            }
            for kernel in view.kernels.values()
        ],
        "rest": {name: list(array.shape) for name, array in view.rest.items()},
    }


def file_words(view: FileView) -> str:
    """A line per kernel, and what the rest of the file is made of."""
    headings = ("kernel", "shape", "kept", "bits", "type", "granularity", "bytes", "bits/weight", "entropy")
    rows = [
        (
            kernel.name,
            "x".join(map(str, kernel.shape)),
            _channels(kernel),
            str(kernel.choice.bits),
            kernel.choice.number_type.value,
            kernel.choice.granularity.value,
            f"{kernel.size_bytes:,}",
            f"{kernel.bits_per_weight:.2f}",
            f"{kernel.entropy:.2f}",
        )
        for kernel in view.kernels.values()
    ]
    parts = {name: round(size) for name, size in view.parts.items()}
    rest = f"{parts['values'] + parts['raw']:,} for {len(view.rest)} other tensors"
    total = (
        f"{view.size_bytes:,} bytes: {parts['codes']:,} for codes, {parts['scales']:,} for scales, {rest}, "
        f"{parts['masks']:,} for masks, {parts['header'] + parts['manifest']:,} for header, names and models"
    )
    entropy = f"zero-order entropy of all that is coded: {view.entropy_bits / 8:,.0f} bytes"
    sites = f"activations in 8 bits at {len(view.activations)} places" if view.activations else "activations in float"
    return f"{table(headings, rows)}\n\n{total}\n{entropy}; {sites}"


def _channels(kernel: KernelView) -> str:
    """Kept of all output channels, where some are scattered back; a coupled kernel shows in its shape."""
    return "all" if kernel.mask is None else f"{int(kernel.mask.sum())}/{len(kernel.mask)}"
