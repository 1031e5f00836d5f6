"""How well a measured latency table predicts what a pruned network takes, in PyTorch on this machine.

    python benchmarks/latency_table.py

Networks of wide convolutions, where channels are what time is spent on, at several keep ratios. The original and the slim
network take turns in one process; what is compared is the ratio of their times. Prints a table, and appends a row to
latency-table.jsonl. `both` is the table that hirelc uses for a limit: it was told what the smallest network takes, too.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import torch
from torch import nn

from hirelc.compression.apply import apply
from hirelc.compression.prune import canonical
from hirelc.measure.latency import LatencyTable, TorchKernels, networks_ms, smallest
from hirelc.network.spec import NetworkSpec
from hirelc.network.trace import trace
from hirelc.policy import Choice, Policy

RESULTS = Path(__file__).parent / "latency-table.jsonl"
LEAST = 0.5
RATIOS = (0.875, 0.75, 0.625, LEAST)
WIDTHS = (32, 64, 128)


class Block(nn.Module):
    """A residual block whose inner channels can be pruned."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.b = nn.Conv2d(2 * width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.b(self.a(x).relu())


def slim(network: nn.Module, spec: NetworkSpec, policy: Policy) -> nn.Module:
    squares = {k.name: dict(network.named_parameters())[k.name].detach().square() for k in spec.kernels}
    return apply(network, spec, policy, squares).network.eval()


def rows_of(width: int) -> list[dict[str, float]]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), Block(width), Block(width), Block(width)).eval()
    inputs = torch.randn(1, 3, 28, 28)
    spec = trace(network, torch.randn(2, 3, 28, 28))
    timer = TorchKernels(network, spec, inputs)
    policies = {r: canonical(spec, Policy.of({k.name: Choice(keep_ratio=r) for k in spec.kernels})) for r in RATIOS}
    least = slim(network, spec, smallest(spec, LEAST))
    networks = {"original": network, "least": least, **{str(r): slim(network, spec, p) for r, p in policies.items()}}
    found = networks_ms(networks, inputs)
    whole = found["original"]
    tables = {
        name: LatencyTable.of(spec, timer, (whole, known), LEAST, "PyTorch", 1, 1)
        for name, known in (("original", None), ("both", found["least"]))
    }
    return [
        {
            "width": width,
            "keep": ratio,
            "measured": found[str(ratio)] / whole,
            **{name: table.predict(spec, policy) / whole for name, table in tables.items()},
        }
        for ratio, policy in policies.items()
    ]


def main() -> None:
    load = os.getloadavg()[0]
    rows = [row for width in WIDTHS for row in rows_of(width)]
    print(f"{'width':>6} {'keep':>6} {'measured':>9} {'original':>9} {'both':>6}")
    for row in rows:
        print(f"{row['width']:>6} {row['keep']:>6} {row['measured']:>9.2f} {row['original']:>9.2f} {row['both']:>6.2f}")
    for name in ("original", "both"):
        errors = [abs(row[name] / row["measured"] - 1) for row in rows]
        print(f"{name}: off by {sum(errors) / len(errors):.0%} on average, {max(errors):.0%} at most")
    where = {"machine": platform.machine(), "cores": os.cpu_count(), "load": load, "torch": torch.__version__}
    with RESULTS.open("a") as file:
        file.write(json.dumps({"date": time.strftime("%Y-%m-%d"), **where, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
