"""Turns results.jsonl into RESULTS.md and the README's picture.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PICTURE = HERE.parent / "docs/images/bench.png"
COLUMNS = (
    "network",
    "protocol",
    "strategy",
    "seed",
    "bytes",
    "ratio",
    "test",
    "original",
    "control",
    "lost",
    "MAC ratio",
    "images",
    "s",
)
# what others measured on the same networks and data: shared bench, "Uniform bits", bit-packed sizes, one seed
RIVALS = {
    "resnet20": [("uniform 4 bit", 7.8, 92.38), ("uniform 3 bit", 10.2, 92.36), ("uniform ternary", 14.9, 92.12)],
    "vit": [("uniform 3 bit", 9.0, 90.38), ("uniform ternary", 12.3, 89.52)],
}
CODE_OF_PAPER = {"resnet20": (5.81, 89.97)}

INTRODUCTION = """# Results

Every row is one run of `benchmarks/protocol.py`, written by it to `results.jsonl` and tabulated by `tables.py`:

    python benchmarks/protocol.py --bench DIR --network {networks} --protocol A|B --ratio R --seed S [--strategy uniform]

`DIR` holds the common benchmark: two trained networks on Fashion-MNIST. *ratio* is the fp32 safetensors file over our
whole file. *test* is the accuracy on the 10,000 test images of the network read back from the file; *lost* counts
against the better of original and control, which got the same final fine-tune. *images* is what search and final
fine-tune saw together. Times are of shared, often busy machines: compare them only within one row's machine and day.

"""


def load() -> list[dict]:
    lines = (HERE / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def table(rows: list[dict]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " | commit |", "|" + "---|" * (len(COLUMNS) + 1)]
    for r in sorted(rows, key=lambda r: (r["network"], r["protocol"], r["strategy"], r["goal_ratio"], r["seed"])):
        control = "-" if r["test_control"] is None else f"{r['test_control']:.2f}"
        cells = [r["network"], r["protocol"], r["strategy"], r["seed"], f"{r['bytes']:,}", f"{r['ratio']:.1f}x"]
        cells += [f"{r['test']:.2f}", f"{r['test_original']:.2f}", control, f"{r['loss_points']:+.2f}", f"{r['mac_ratio']:.2f}"]
        cells += [f"{r['images_seen']:,}", r["seconds"], f"`{r['commit']}`"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def machines(rows: list[dict]) -> str:
    kinds = sorted({f"{r['machine']}, torch {r['torch']}" for r in rows})
    return "\nMachine: " + "; ".join(kinds) + ".\n"


def picture(rows: list[dict]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for axis, network, title in zip(axes, ("resnet20", "vit"), ("ResNet-20", "Vision transformer"), strict=True):
        own = [r for r in rows if r["network"] == network and r["strategy"] == "hirelc"]
        for protocol, marker in (("A", "o"), ("B", "s")):
            points = [(r["ratio"], r["test"]) for r in own if r["protocol"] == protocol]
            if points:
                axis.scatter(
                    *zip(*points, strict=True), marker=marker, color="tab:blue", label=f"hirelc, protocol {protocol}", zorder=3
                )
        rivals = RIVALS[network]
        axis.plot([r[1] for r in rivals], [r[2] for r in rivals], "x--", color="tab:gray", label="uniform bits, 24,000 images")
        if network in CODE_OF_PAPER:
            axis.scatter(*CODE_OF_PAPER[network], marker="v", color="tab:red", label="the paper's code, as quantized")
        if own:
            axis.axhline(own[0]["test_original"], color="black", linewidth=0.8, label="original, fp32")
        axis.set(title=title, xlabel="times smaller (whole file)", ylabel="test accuracy, %")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="best")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=130)


def main() -> None:
    rows = load()
    text = INTRODUCTION.replace("{networks}", "resnet20|vit") + table(rows) + machines(rows)
    (HERE / "RESULTS.md").write_text(text)
    picture(rows)
    print(text)


if __name__ == "__main__":
    main()
