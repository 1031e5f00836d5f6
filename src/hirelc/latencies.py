"""The latency table of a run, and what original and delivered network really take."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hirelc.batches import first_samples
from hirelc.compression.prune import select
from hirelc.errors import RunError
from hirelc.measure.latency import LatencyTable, TorchKernels, batch_of, networks_ms, smallest, torch_words
from hirelc.network.surgery import slim
from hirelc.run import Run

TABLE_FILE = "latency.json"
TOLERANCE = 0.05  # of the limit: medians of the same network differ by about as much from one minute to the next


@dataclass(frozen=True)
class Latency:
    """What calls took at the end of a run.

    :param original_ms: measured in turns with the delivered network's, compressed_ms
    :param predicted_ms: of the delivered network, by the table
    """

    table: LatencyTable
    original_ms: float
    compressed_ms: float
    predicted_ms: float

    @property
    def comparable_ms(self) -> float:
        """The delivered network's as it would have been when the table was measured: the goal is judged by that.

        What else the machine does then and now hits the original alike.
        """
        return self.compressed_ms * self.table.original_ms / self.original_ms

    @property
    def words(self) -> str:
        """How `comparable_ms` came about."""
        return (
            f"{self.compressed_ms:.3g} measured beside {self.original_ms:.3g} of the original, which took "
            f"{self.table.original_ms:.3g} when the table was made; {self.predicted_ms:.3g} predicted; {self.table.words}"
        )


def make_table(run: Run) -> LatencyTable | None:
    """Measures the table, or reads that of this run or of another one; None where the goal limits no latency.

    :raises RunError: the table that `Config.latency_table` names is not of this network
    """
    if run.goal.max_latency_ms is None:
        return None
    table, source = stored_table(run), "this run"
    if table is None and run.config.latency_table is not None:
        table, source = _read(Path(run.config.latency_table)), "another run"
        _check(run, table, run.config.latency_table)
    if table is None:
        with run.say.stage("latency table"):
            table, source = _measured(run), "measured"
    run.directory.write_json(TABLE_FILE, table)
    run.directory.journal(
        "latency_table",
        source=source,
        runtime=table.runtime,
        threads=table.threads,
        batch=table.batch,
        original_ms=table.original_ms,
        rest_ms=table.rest_ms,
        scale=table.scale,
        kernels=len(table.kernels),
    )
    run.say.line(
        f"latency of the original: {table.original_ms:.3g} ms ({table.words}), "
        f"{table.original_ms - table.rest_ms:.3g} of it in {len(table.kernels)} kernels"
    )
    return table


def stored_table(run: Run) -> LatencyTable | None:
    """The table in the run's folder; None before it is made, or where the goal limits no latency."""
    path = run.directory.path / TABLE_FILE
    return _read(path) if run.goal.max_latency_ms is not None and path.is_file() else None


def _read(path: Path) -> LatencyTable:
    try:
        text = path.read_text()
    except OSError as error:
        raise RunError(f"the latency table {path} cannot be read ({error.strerror}): check --latency-table") from None
    try:
        return LatencyTable.loads(text)
    except RunError as error:
        raise RunError(f"{path}: {error}") from None


def _check(run: Run, table: LatencyTable, path: str) -> None:
    wanted = {k.name: k.shape for k in run.spec.kernels if k.macs}
    fits = set(table.kernels) == set(wanted) and all(
        wanted[name][dim] == sizes[-1] for name, t in table.kernels.items() for dim, sizes in zip(t.dims, t.sizes, strict=True)
    )
    if not fits:
        raise RunError(f"the latency table {path} is of another network: leave out --latency-table to measure one")
    if table.batch != run.config.latency_batch:
        raise RunError(
            f"the latency table {path} is for {table.batch} samples a call, the run for {run.config.latency_batch}: "
            f"give --latency-batch {table.batch}, or leave out --latency-table"
        )


def _measured(run: Run) -> LatencyTable:
    inputs = _inputs(run)
    network = copy.deepcopy(run.model).cpu().eval()
    timer = TorchKernels(network, run.spec, inputs)
    least, batch = run.config.search.min_keep, run.config.latency_batch
    squares = {name: tensor.detach().square() for name, tensor in network.named_parameters()}
    small = slim(network, run.spec, select(run.spec, smallest(run.spec, least), squares))
    whole = networks_ms({"original": network, "smallest": small}, inputs)
    wholes = whole["original"], whole["smallest"]
    return LatencyTable.of(run.spec, timer, wholes, least, torch_words(), threads=1, batch=batch)


def _inputs(run: Run) -> object:
    samples, _ = first_samples(run.train, run.config.latency_batch)
    return batch_of(samples, run.config.latency_batch)


def final_latencies(run: Run, compressed: nn.Module) -> tuple[float, float] | None:
    """Milliseconds of the original and of the delivered network, measured in turns; None where no latency is limited."""
    if run.goal.max_latency_ms is None:
        return None
    networks = {"original": copy.deepcopy(run.model).cpu(), "compressed": copy.deepcopy(compressed).cpu()}
    with run.say.stage("latency of original and compressed"):
        found = networks_ms(networks, _inputs(run))
    return found["original"], found["compressed"]
