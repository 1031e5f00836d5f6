"""One picture of a run: cycle, goal, best so far, front, what is under way, time left."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, OverflowMethod, RenderableType, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hirelc.live.front import Front, can_plot, listing, plot
from hirelc.report.outlook import UnderWay
from hirelc.report.status import Status
from hirelc.report.timing import State
from hirelc.report.words import about, duration

FREE = 3  # columns at the right, where a terminal echoes ^C: a line that it breaks cannot be taken back
WIDEST = 100  # columns; a longer line is harder to read
BARE_LINES, PLOT_LINES, ABOVE = 11, 3, 3  # of the frame without a plot, around a plot's own, and left for what was said
LEAST_WIDTH, LEAST_PLOT, MOST_PLOT = 50, 4, 9


@dataclass(frozen=True)
class Frame:
    """Drawn as wide and as high as there is room.

    :param at: what is under way; None between two pieces of work
    :param words: a few on where that stands
    """

    status: Status
    front: Front
    at: UnderWay | None = None
    words: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width - FREE, WIDEST)
        inner = width - 4
        plain = options.ascii_only
        overflow: OverflowMethod = "crop" if plain else "ellipsis"  # an ellipsis is no ASCII
        parts: list[RenderableType] = [self._facts()]
        room = console.height - BARE_LINES - PLOT_LINES - ABOVE
        if self.front.points and room >= LEAST_PLOT and inner >= LEAST_WIDTH and can_plot() and not plain:
            parts += ["", plot(self.front, inner, min(room, MOST_PLOT))]
        elif self.front.points and room + MOST_PLOT >= 0:
            parts += ["", listing(self.front)]
        if self.status.state is State.RUNNING or self.at is not None:
            parts += ["", self._work(overflow)]
        title = Text(str(self.status.folder), style="bold")
        title.truncate(inner - 2, overflow=overflow)
        yield Panel(Group(*parts), title=title, title_align="left", width=width, border_style="dim")

    def _facts(self) -> RenderableType:
        status, (cycle, cycles) = self.status, self.status.cycles
        rows = Table.grid(padding=(0, 1, 0, 0))
        rows.add_column(width=5, style="dim")
        rows.add_column()
        failed = f", {status.failed} rejected" if status.failed else ""
        measured = f"{status.measured} candidate{'s' if status.measured != 1 else ''} measured{failed}"
        if status.picked_from is None:
            rows.add_row("cycle", Text(f"{cycle}{f' of {cycles}' if cycles else ''}, {measured}"))
        else:
            rows.add_row("from", Text(f"{status.picked_from}, without a search"))
        rows.add_row("goal", Text(status.goal))
        rows.add_row("best", self._best())
        if status.state is not State.RUNNING:
            rows.add_row("state", Text(f"{status.state.value}, {status.doing}"))
        if status.state in (State.DIED, State.INTERRUPTED):
            rows.add_row("go on", Text(f"hirelc resume {status.folder}"))
        return rows

    def _best(self) -> Text:
        best = self.status.best
        if best is None:
            return Text("nothing measured yet", style="dim")
        parts = [] if best["ratio"] is None else [f"{best['ratio']:.2f}x smaller"]
        parts.append(f"{best['size_bytes']:,} bytes")
        if best["drop_points"] is not None:
            parts.append(f"{best['drop_points']:+.2f} points lost")
        verdict = "within the goal" if best["within_goal"] else "short of the goal"
        text = Text(f"{', '.join(parts)}: ")
        return text.append(verdict, style="bold green" if best["within_goal"] else "bold yellow")

    def _work(self, overflow: OverflowMethod) -> RenderableType:
        rows = Table.grid(padding=(0, 1, 0, 0), expand=True)
        rows.add_column(width=5, style="dim")
        rows.add_column(ratio=1)
        rows.add_column(width=4, justify="right")
        at, status = self.at, self.status
        if at is not None:
            words = f", {self.words}" if self.words else ""
            rows.add_row("now", _line(f"{at.title}{words}: {duration(at.seconds)}{_stage_left(at)}", overflow))
            rows.add_row("", _bar(at.part), "" if at.part is None else f"{at.part:.0%}")
        else:
            rows.add_row("now", _line(status.doing.removeprefix("now "), overflow))
            rows.add_row("", "")
        if status.state is not State.RUNNING:  # its front is being extended
            return rows
        left = status.left_seconds
        known = "time left is known once a candidate is measured" if left is None else f"about {about(left)} left"
        rows.add_row("run", _line(f"{duration(status.spent_seconds)}, {known}", overflow))
        part = None if left is None else status.spent_seconds / max(status.spent_seconds + left, 1e-9)
        rows.add_row("", _bar(part, moving=False), "" if part is None else f"{part:.0%}")
        return rows


def _line(text: str, overflow: OverflowMethod) -> Text:
    return Text(text, no_wrap=True, overflow=overflow)


def _stage_left(at: UnderWay) -> str:
    if not at.part or at.part >= 1 or at.seconds < 1:
        return ""
    return f", {duration(at.seconds * (1 - at.part) / at.part)} left"


def _bar(part: float | None, moving: bool = True) -> RenderableType:
    if part is None and not moving:
        return ""
    return ProgressBar(total=None if part is None else 1.0, completed=part or 0.0)
