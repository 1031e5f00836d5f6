"""What hirelc does with networks it was not written for: small models of transformers, from inspection to ONNX.

    python benchmarks/networks.py                # all of network_list.py, a row each; then the table
    python benchmarks/networks.py Swin Mamba     # these alone; the other rows stay as they are
    python benchmarks/networks.py --table        # RESULTS-networks.md from the rows

Rows are kept in networks.jsonl, with the commit that they were made at; the last of a name counts. All but the
comparison of slim and masked networks, which looks inside, is public API.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

import hirelc
from hirelc.batches import as_batches, batch_length, map_inputs
from hirelc.compression.prune import select
from hirelc.export.onnx import Settings
from hirelc.labelled import Labelled
from hirelc.measure.evaluate import accuracy
from hirelc.models import answers, settled
from hirelc.network.calling import logits_of, steady_call
from hirelc.network.surgery import masked_state, slim
from hirelc.progress import Silent
from network_list import NETWORKS, Network

HERE = Path(__file__).parent
ROWS, TABLE = HERE / "networks.jsonl", HERE / "RESULTS-networks.md"
SEEDS, LEAST_KEEP = 5, 0.25
CONFIG = hirelc.Config(
    fisher_samples=4,
    calibration_samples=8,
    search=hirelc.SearchConfig(cycles=2, low_level_steps=8, high_level_steps=8, surrogate_min_samples=2, strategy="uniform"),
    train=hirelc.TrainConfig(images=140, batch_size=8, precision="fp32", evaluations=1, control=False),
)
COLUMNS = ("network", "found / listed / missed", "blocks", "coupled", "rows", "slim = masked", "compress", "file", "ONNX", "s")
NOTE = """# What hirelc does with other networks

    python benchmarks/networks.py

Small models of transformers, random weights. *Found / listed / missed*: kernels, tensors that are left as they are with a
reason, layers that are neither. *Coupled*: kernels whose output channels (or heads) go together with what reads
them; *rows*: those that are scattered back to their width. *Slim = masked*: the largest difference between the network
that is physically smaller and the one whose weights are zeroed, relative to the largest output, five random policies with
keep ratios down to 0.25. *Compress*: ratio after two cycles by `hirelc.compress`, goal 4, agreement with the original
as metric (what is measured is whether it runs, not how good it is). *File*: whether the network read back gives exactly
the reported metric. *ONNX*: share of inputs with the same first choice in onnxruntime, and the layer that differs most,
with 8-bit activations found on 16 random inputs; or the words of the refusal. (First choices of untrained networks are
close; 8-bit activations change some, which the export refuses. The graph is then compared in float as well.)
"""


def layers(network: nn.Module) -> list[str]:
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return [name for name, module in network.named_modules() if isinstance(module, kinds) or type(module).__name__ == "Conv1D"]


def run(network: nn.Module, inputs: Any, state: dict[str, Tensor] | None = None) -> Tensor:
    with torch.no_grad():
        return logits_of(steady_call(network, inputs, state))


def random_policy(spec: Any, seed: int) -> hirelc.Policy:
    random = np.random.default_rng(seed)
    return hirelc.Policy.of({k.name: hirelc.Choice(4, float(random.uniform(LEAST_KEEP, 1))) for k in spec.kernels})


def largest_difference(network: nn.Module, spec: Any, inputs: Any) -> float:
    """Between slim and masked network, over random policies."""
    weights = dict(network.named_parameters())
    squares = {k.name: weights[k.name].detach().square() for k in spec.kernels}
    worst = 0.0
    for seed in range(SEEDS):
        kept = select(spec, random_policy(spec, seed), squares)
        masked = run(network, inputs, masked_state(network, spec, kept))
        found = run(slim(network, spec, kept), inputs)
        finite = torch.isfinite(masked)
        worst = max(worst, float((found - masked)[finite].abs().max() / masked[finite].abs().max()))
    return worst


def many(network: Network, count: int, seed: int) -> Any:
    torch.manual_seed(seed)
    parts = [network.inputs() for _ in range(count // 4)]
    if isinstance(parts[0], dict):
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return torch.cat(parts)


def attempt(what: Callable[[], str]) -> str:
    """Its answer, or the words of its refusal. Anything but a refusal is a fault of hirelc's, and says so."""
    try:
        return what()
    except hirelc.HirelcError as error:
        return f"refused: {error}"
    except Exception as error:  # noqa: BLE001 - the table is there to show them
        return f"FAULT: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def measure(network: Network) -> dict[str, Any]:
    original, inputs = network.make().eval(), map_inputs(many(network, 4, 0), lambda tensor: tensor)
    row: dict[str, Any] = {"network": network.name, "listed": network.listed}
    begun = time.process_time()

    def inspect() -> str:
        spec = hirelc.trace(original, inputs)
        seen = {k.module for k in spec.kernels} | {u.name.rpartition(".")[0] for u in spec.untouched}
        missed = [layer for layer in layers(original) if layer not in seen]
        ways = Counter(k.pruning.value for k in spec.kernels)
        row["kernels"] = f"{len(spec.kernels)} / {len(spec.untouched)} / {len(missed)}"
        row["blocks"], row["coupled"], row["rows"] = len(spec.blocks), ways["coupled"], ways["rows"]
        row["slim"] = f"{largest_difference(original, spec, inputs):.0e}"
        return ""

    row["refused"] = attempt(inspect)
    if not row["refused"]:
        with tempfile.TemporaryDirectory() as folder:
            row["compress"] = attempt(lambda: compress(network, original, Path(folder), row))
            made = (Path(folder) / "run" / "model.hirelc").is_file()
            row["onnx"] = attempt(lambda: export(network, Path(folder))) if made else ""
    row["s"] = round(time.process_time() - begun, 1)
    return row


def compress(network: Network, original: nn.Module, folder: Path, row: dict[str, Any]) -> str:
    train, validation, task = many(network, 32, 1), many(network, 16, 2), hirelc.find_task("distill")
    goal = hirelc.Goal(ratio=4)
    result = hirelc.compress(original, train, validation, goal, folder / "run", config=CONFIG, task=task, reporter=Silent())
    data = as_batches(validation, 8, labelled=False)
    task = settled(task, original, data)
    again = accuracy(hirelc.load(result.path, network.make), Labelled(data, answers(original, task)), task)
    row["file"] = "the same" if again == result.compressed.validation else f"FAULT: {again} for {result.compressed.validation}"
    return f"{result.compressed.ratio:.1f}x"


def export(network: Network, folder: Path) -> str:
    """With activations in 8 bits; where random weights leave first choices so close that these change, in float too."""
    try:
        return export_with(network, folder, "int8")
    except hirelc.HirelcError as error:
        found = re.search(r"agrees with the file on ([\d.]+) %", str(error))
        if found is None:
            raise
        return f"{export_with(network, folder, 'float')} in float; refused in 8 bits at {float(found[1]):.0f} %"


def export_with(network: Network, folder: Path, activations: str) -> str:
    data = Labelled(as_batches(many(network, 16, 3), 8, labelled=False), lambda inputs: torch.zeros(batch_length(inputs)))
    found = hirelc.export_onnx(
        folder / "run" / "model.hirelc",
        network.make,
        folder / "net.onnx",
        calibration=data,
        example=many(network, 4, 4),
        # onnxruntime multiplies 4-bit weights by activations that it rounds itself: in float they are held in 8
        settings=Settings(activations=activations, weights="int8" if activations == "float" else "auto"),
    )
    return f"{found.parity.agreement:.0f} %, {100 * found.parity.worst_layer:.1f} %"


def table() -> str:
    rows = {row["network"]: row for row in map(json.loads, ROWS.read_text().splitlines())}
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for name in (n.name for n in NETWORKS if n.name in rows):
        row = rows[name]
        if row["refused"]:
            lines.append(f"| {name} | {row['refused']} |" + " |" * (len(COLUMNS) - 2))
            continue
        keys = ("network", "kernels", "blocks", "coupled", "rows", "slim", "compress", "file", "onnx", "s")
        lines.append("| " + " | ".join(str(row.get(key, "")).replace("|", "/") for key in keys) + " |")
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows.values()))
    return (
        f"{NOTE}\ntransformers {transformers.__version__}, torch {torch.__version__}, commits {commits}.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    by_name = {network.name: network for network in NETWORKS}
    asked = [by_name[name] for name in arguments or by_name if not name.startswith("-")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True)
    for network in asked:
        row = {**measure(network), "commit": commit.stdout.strip()}
        print(json.dumps(row), flush=True)
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    TABLE.write_text(table())
    print(table())


if __name__ == "__main__":
    main(sys.argv[1:])
