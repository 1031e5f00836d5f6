"""What people read about an export and a benchmark."""

from __future__ import annotations

from hirelc.export.bench import Bench
from hirelc.export.onnx import Exported
from hirelc.words import table


def export_words(found: Exported, file_bytes: int) -> str:
    """A line per kernel, then parity and size."""
    headings = ("kernel", "bits", "type", "granularity", "in ONNX", "bytes", "")
    rows = [
        (
            k.name,
            str(k.bits),
            k.number_type,
            k.granularity,
            k.stored_as,
            f"{k.size_bytes:,}",
            k.note or _widened(k.bits, k.stored_as),
        )
        for k in found.kernels
    ]
    parity = found.parity
    lines = [table(headings, rows), ""]
    lines.append(
        f"{found.path}: {found.size_bytes:,} bytes, opset {found.opset}, {found.sites} quantized activations "
        f"(the .hirelc file: {file_bytes:,} bytes; ONNX cannot hold coded or 3-bit weights)"
    )
    words = f"agrees with the file on {parity.agreement:.2f} % of the {parity.compared} of {parity.samples:,} samples"
    if parity.accuracy_file is not None and parity.accuracy_onnx is not None:
        words += f"; {parity.metric}: {parity.accuracy_onnx:.2f}, from the file {parity.accuracy_file:.2f}"
    lines.append(f"{words}; layers differ by at most {100 * parity.worst_layer:.2f} % of their size")
    return "\n".join(lines)


def _widened(bits: int, stored_as: str) -> str:
    width = {"INT4": 4, "INT8": 8, "UINT8": 8}.get(stored_as, bits)
    return f"{bits} bits widened to {width}" if width != bits else ""


def bench_words(found: Bench) -> str:
    """Sizes, then latencies side by side."""
    original = found.size_bytes["original safetensors"]
    rows = [(name, f"{size:,}", f"{original / size:.1f}x") for name, size in found.size_bytes.items()]
    lines = [table(("", "bytes", "of the original"), rows), ""]
    times = {(e.runtime, e.batch, e.model): e for e in found.latencies}
    compared = []
    for runtime, batch in dict.fromkeys((e.runtime, e.batch) for e in found.latencies):
        cells = []
        for model in ("original", "compressed"):
            entry = times[runtime, batch, model]
            cells.append(f"{entry.milliseconds:.2f} ({entry.spread[0]:.2f} .. {entry.spread[1]:.2f})")
        compared.append((runtime, str(batch), *cells, f"{found.speedup(batch, runtime):.2f}x"))
    lines += [table(("runtime", "batch", "fp32, ms", "integer, ms", "faster"), compared), ""]
    lines.append(f"{found.threads} thread(s); medians of calls in turns, with the middle half of them")
    lines.append("peak memory: " + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in found.peak_mib.items()))
    if found.macs is not None:
        lines.append(f"multiply-accumulates of one sample: {found.macs[0]:,} and {found.macs[1]:,}")
    return "\n".join(lines)
