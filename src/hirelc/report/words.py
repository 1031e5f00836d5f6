"""Numbers and goals in words, alike on the page and in the terminal."""

from __future__ import annotations

from hirelc.report.reading import Json


def goal_words(goal: Json) -> str:
    """At least 12x smaller, at most 0.5 points lost."""
    parts = []
    if goal.get("ratio") is not None:
        parts.append(f"at least {goal['ratio']:g}x smaller")
    if goal.get("max_bytes") is not None:
        parts.append(f"at most {goal['max_bytes']:,} bytes")
    if goal.get("max_macs") is not None:
        parts.append(f"at most {goal['max_macs']:,.0f} MACs")
    if goal.get("max_latency_ms") is not None:
        parts.append(f"at most {goal['max_latency_ms']:g} ms a call")
    if goal.get("max_drop") is not None:
        parts.append(f"at most {goal['max_drop']:g} points lost")
    return ", ".join(parts) or "not recorded"


def duration(seconds: float) -> str:
    """2 h 05 min, 7 min 30 s, 12 s, 0.4 s."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def about(seconds: float) -> str:
    """An estimate, no more exact than it is: 40 s, 9 min, 1 h 20 min."""
    if seconds < 55:
        return f"{max(5, round(seconds / 5) * 5)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{max(1, minutes)} min"
    hours, minutes = divmod(round(minutes / 5) * 5, 60)
    return f"{hours} h {minutes:02d} min"


def kilobytes(size: float) -> str:
    """12.3 kB; 1.23 MB: decimal, as file lengths are."""
    if size >= 1e6:
        return f"{size / 1e6:.2f} MB"
    return f"{size / 1e3:.1f} kB" if size >= 1e3 else f"{size:.0f} B"


def shape_words(shape: tuple[int, ...]) -> str:
    """64x32x3x3."""
    return "x".join(map(str, shape)) or "scalar"
