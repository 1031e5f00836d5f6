"""Turns results.jsonl into RESULTS.md and the README's picture.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from hirelc.ablation import Outcome
from hirelc.words_ablation import outcome_table
from tables_search import searches, surrogates

HERE = Path(__file__).parent
PICTURE = HERE.parent / "docs/images/bench.png"
COLUMNS = (
    "network",
    "protocol",
    "strategy",
    "format",
    "rate term",
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
# what others measured on the same networks and data (the common benchmark's own figures, one seed; size = entropy of the
# codes + scales + rest): uniform bits on 6,000 images; uniform ternary with a rate term on 55,000 images, 330,000 seen
RIVALS = {
    "resnet20": {"A": [(9.1, 92.38), (12.2, 92.36), (19.7, 92.12)], "B": [(29.2, 93.07), (39.5, 92.49)]},
    "vit": {"A": [(10.2, 90.38), (15.1, 89.52)], "B": [(19.6, 90.13)]},
}
COLOURS = {"A": "tab:blue", "B": "tab:orange"}
CODE_OF_PAPER = {"resnet20": (5.81, 89.97)}

INTRODUCTION = """# Results

Every row is one run of `benchmarks/protocol.py`, written by it to `results.jsonl` and tabulated by `tables.py`:

    python benchmarks/protocol.py --bench DIR --network {networks} --protocol A|B --ratio R --seed S [--strategy uniform]

`DIR` holds the common benchmark: two trained networks on Fashion-MNIST. *ratio* is the fp32 safetensors file over our
whole file. *test* is the accuracy on the 10,000 test images of the network read back from the file; *lost* counts
against the better of original and control, which got the same final fine-tune. *images* is what search and final
fine-tune saw together. Format 1 was bit-packed, formats 2 and 3 are entropy-coded. Times are of shared, often busy machines:
compare them only within one row's machine and day.

"""

MEANS = """
Means over seeds of one budget (newest format; the newest row of each seed). With up to 400,256 images,
long final fine-tunes could be stopped before their end
([decision 26](../docs/decisions/0026-last-fine-tune-and-likely-drops.md)).

| network | protocol | strategy | seeds | images | ratio | test | control | lost | MAC ratio |
|---|---|---|---|---|---|---|---|---|---|
"""

FILES = """
## The file
`python benchmarks/file.py --bench DIR --speed --nncodec-python PYTHON [RUN/model.hirelc ...]`: files of runs;
uniform bits, not fine-tuned, first and last kernel in 8 bits (*NETWORK-Nbit*). *Of goal* is our bytes over 1.02 times
the zero-order entropy of all that is coded plus 2 KB (contexts beat it in convolutions); zstd -19 and xz -9e pack the
bit-packed equivalent (fp16 scales and rest), NNCodec 2.1.3 codes the same integers. *Beside codes*: masks, scales, norms,
biases and embeddings, of which a tenth is the goal; *all but codes* counts header and manifest (names, shapes, models), too.

| file | bytes | of goal | bit-packed | zstd -19 | xz -9e | NNCodec | beside codes | all but codes |
|---|---|---|---|---|---|---|---|---|
"""

PARITY = """
## Export
`python benchmarks/parity.py --bench DIR --network NETWORK RUN/model.hirelc ...`: integer ONNX models in onnxruntime beside
their files, on the 10,000 test images. These files hold no ranges of activations: they come from 512 training images. At
least 99.5 % of the first choices must agree and accuracy lie within 0.1 points; else nothing is written.

| file | bytes | ONNX, bytes | kernels | first choices that agree | accuracy, ONNX | accuracy, file | layers differ by at most |
|---|---|---|---|---|---|---|---|
"""

ABLATIONS = """
## Search strategies on equal terms
`hirelc ablate --network NETWORK --bench DIR --ratio R --seeds S --images I --cycles C --out OUT`; OUT/ablation.json is kept as
`ablations/NETWORK-RATIO-COMMIT.json`. What the columns mean: [docs/search.md](../docs/search.md). Few samples: what is left at
the end of a long fine-tune is in the rows above. At `6bf862c` only the exact solver and uniform policies were compared; they
ran at `f212f1b`, which differs in how fast the best policy so far is trained on, which they do not do. Its times are of a
machine that ran tests as well. `78c8727` is an earlier version, whose policies were compared by another loss (decisions
[27](../docs/decisions/0027-the-tasks-own-loss-decides.md) and [28](../docs/decisions/0028-no-training-is-thrown-away.md));
there the rivals' seed 0 ran at `2700658`, most parts of the ResNet-20 at `ce72d5a` and `f8ebda8`.
"""

RATES = """
## The rate term
`python benchmarks/rate.py --bench DIR --network resnet20|vit`: the reference policy (no search) at several sizes, fine-tuned
from the original for a few images with the rate term and without, read back; ratio and points lost on the search-validation
split.

| network | goal | seed | images | with | without | commit |
|---|---|---|---|---|---|---|
"""

CALIBRATIONS = """
## Without training
`python benchmarks/calibrate.py --bench DIR --network resnet20|vit`: uniform 3-bit levels and the searched policy at the bytes
of that file, the same reconstruction; points lost, CPU seconds on one thread.

| network | seed | policy | bytes | bits per weight | lost, test | lost, search-validation | CPU s | commit |
|---|---|---|---|---|---|---|---|---|
"""

LATENCY = """
## Latency
`python benchmarks/latency.py`: networks with random weights, exported to integers, against the fp32 ONNX of the original in
the same run and with the same threads (onnxruntime on the CPU; medians of interleaved runs). cnn: MobileNetV2, vit: ViT-Tiny,
both at 224 pixels. *Load*: processes that wanted a core, the run's own included. What limits it:
[docs/export.md](../docs/export.md).

| network | kept | threads | batch | fp32, ms | integers, ms | times faster | machine | load |
|---|---|---|---|---|---|---|---|---|
"""


FAULTS = """
## Faults
`python benchmarks/faults.py --note`: a small run killed with SIGKILL at random moments and resumed until its end; *same* are
the runs whose policy and file are those of a run left alone, byte for byte. Then the same run on a disk that fills up.

| kills | after which event they struck | runs | same | full disk | same after making room | machine |
|---|---|---|---|---|---|---|
"""


def load(name: str) -> list[dict]:
    path = HERE / name
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def table(rows: list[dict]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " | commit |", "|" + "---|" * (len(COLUMNS) + 1)]
    for r in sorted(rows, key=lambda r: (r["network"], r["protocol"], r["strategy"], r["goal_ratio"], r["seed"])):
        control = "-" if r["test_control"] is None else f"{r['test_control']:.2f}"
        cells = [r["network"], r["protocol"], r["strategy"], r.get("format", 1), "yes" if r.get("rate_term") else "no"]
        cells += [r["seed"], f"{r['bytes']:,}", f"{r['ratio']:.1f}x"]
        cells += [f"{r['test']:.2f}", f"{r['test_original']:.2f}", control, f"{r['loss_points']:+.2f}", f"{r['mac_ratio']:.2f}"]
        # a run that another version went on with has two
        made = dict.fromkeys([r.get("searched_at", r["commit"]), r["commit"]])
        cells += [f"{r['images_seen']:,}", r["seconds"], ", ".join(f"`{commit}`" for commit in made)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def means(rows: list[dict]) -> str:
    """Of goals that several seeds were run for with the newest format."""
    runs: dict[tuple, dict[int, dict]] = {}
    newest = max(r.get("format", 1) for r in rows)
    for r in rows:
        if r.get("format") == newest:
            budget = round(r["images_seen"], -5)
            runs.setdefault((r["network"], r["protocol"], r["strategy"], r["goal_ratio"], budget), {})[r["seed"]] = r
    lines = []
    for (network, protocol, strategy, _, budget), found in sorted(runs.items()):
        if len(found) > 1:
            seeds = [found[seed] for seed in sorted(found)]
            cells = [network, protocol, strategy, ", ".join(str(r["seed"]) for r in seeds), f"{budget:,}"]
            cells += [f"{fmean(r['ratio'] for r in seeds):.1f}x"]
            cells += [f"{fmean(r[name] for r in seeds):.2f}" for name in ("test", "test_control")]
            cells += [f"{fmean(r['loss_points'] for r in seeds):+.2f}", f"{fmean(r['mac_ratio'] for r in seeds):.2f}"]
            lines.append("| " + " | ".join(cells) + " |\n")
    return MEANS + "".join(lines) if lines else ""


def files(rows: list[dict]) -> str:
    """The last measurement of each file."""
    lines = []
    for r in {r["file"]: r for r in rows if "file" in r}.values():
        others = [f"{r[k]:,}" if r.get(k) else "-" for k in ("packed", "zstd", "xz", "nncodec")]
        cells = [r["file"], f"{r['bytes']:,}", f"{r['of_goal']:.3f}", *others, f"{r['no_weights']:.1%}"]
        cells.append(f"{r['no_codes']:.1%}" if "no_codes" in r else "-")
        lines.append("| " + " | ".join(cells) + " |")
    text = FILES + "\n".join(lines) + "\n"
    last = {r["speed_bits"]: r for r in rows if "speed_bits" in r}.values()
    if last:
        words = [f"{r['speed_bits']} bit {r['decode_millions_per_s']} and {r['encode_millions_per_s']}" for r in last]
        text += "\nDecoding and encoding, million weights a second on one core: " + ", ".join(words) + ".\n"
    return text


def parities(rows: list[dict]) -> str:
    """The last export of each file."""
    lines = []
    for r in {r["file"]: r for r in rows}.values():
        cells = [r["file"], f"{r['bytes']:,}"]
        if "refused" in r:
            cells += ["refused", "-", r["refused"].partition("agrees with the file on ")[2][:7], "-", "-", "-"]
        else:
            kernels = ", ".join(f"{count} {kind}" for kind, count in r["kernels"].items())
            cells += [f"{r['onnx_bytes']:,}", kernels, f"{r['agreement']:.2f} %"]
            cells += [f"{r['accuracy_onnx']:.2f}", f"{r['accuracy_file']:.2f}", f"{r['worst_layer']:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return PARITY + "\n".join(lines) + "\n"


def latencies(rows: list[dict]) -> str:
    """The last measurement of each configuration."""
    last = {}
    for r in rows:
        for t in r["times"]:
            last[r["network"], r["keep"], r["align"], r["bits"], r["threads"], t["runtime"], t["batch"]] = r, t
    lines = []
    for r, t in sorted(
        last.values(), key=lambda found: (found[0]["network"], -found[0]["keep"], found[0]["align"], found[1]["batch"])
    ):
        cells = [r["network"], f"{r['keep']:.0%}, multiples of {r['align']}", r["threads"], t["batch"]]
        cells += [f"{t['original'][0]:.1f}", f"{t['compressed'][0]:.1f}", f"{t['speedup']:.2f}"]
        cells += [f"{r['machine']}, {t['runtime']}", f"{max(r['load'])}" if "load" in r else "-"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return LATENCY + "\n".join(lines) + "\n"


def faults(rows: list[dict]) -> str:
    lines = []
    for r in rows:
        struck = ", ".join(f"{event} {count}" for event, count in r["struck"].items())
        after = "yes" if r["same_after_full_disk"] else "NO"
        cells = [r["kills"], struck, r["runs"], r["same"], r["disk"], after, r["machine"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return FAULTS + "\n".join(lines) + "\n"


def rates(rows: list[dict]) -> str:
    pairs: dict[tuple, dict[bool, dict]] = {}
    for r in rows:
        pairs.setdefault((r["network"], r["goal_ratio"], r["seed"], r["images"]), {})[r["rate_term"]] = r
    lines = []
    for (network, goal, seed, images), pair in pairs.items():
        made = "`, `".join(sorted({r["commit"] for r in pair.values()}))
        cells = [f"{pair[w]['ratio']}x, {pair[w]['drop']:+.2f}" if w in pair else "" for w in (True, False)]
        lines.append("| " + " | ".join([network, f"{goal:g}x", str(seed), f"{images:,}", *cells, f"`{made}`"]) + " |")
    return RATES + "\n".join(lines) + "\n" if lines else ""


def calibrations(rows: list[dict]) -> str:
    lines = []
    for r in rows:
        cells = [r["network"], r["seed"], r["policy"], f"{r['bytes']:,}", r["file_bits_per_weight"], r["test_lost"]]
        cells += [r["validation_lost"], r["cpu_seconds"], f"`{r['commit']}`"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return CALIBRATIONS + "\n".join(lines) + "\n" if lines else ""


def ablations(folder: Path) -> str:
    """A table for each comparison that is kept; nothing where there is none."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        config, found = document["config"], [Outcome.from_json(run) for run in document["runs"]]
        end = "with" if config["train"]["final"] else "without"
        terms = f"{config['train']['images']:,} training samples and {config['search']['cycles']} cycles a run, "
        terms += f"{end} final fine-tune"
        parts.append(f"\n### {path.stem}\n{document['data']}, {terms}.\n\n{outcome_table(found)}\n")
    return ABLATIONS + "".join(parts) if parts else ""


def machines(rows: list[dict]) -> str:
    kinds = sorted({f"{r['machine']}, torch {r['torch']}" for r in rows})
    return "\nMachine: " + "; ".join(kinds) + ".\n"


def picture(rows: list[dict]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for axis, network, title in zip(axes, ("resnet20", "vit"), ("ResNet-20", "Vision transformer"), strict=True):
        own = [r for r in rows if r["network"] == network and r["strategy"] == "hirelc" and r.get("format", 1) >= 2]
        for protocol, colour in COLOURS.items():
            points = [(r["ratio"], r["test"]) for r in own if r["protocol"] == protocol]
            if points:
                axis.scatter(*zip(*points, strict=True), color=colour, label=f"hirelc, protocol {protocol}", zorder=3)
            axis.plot(*zip(*RIVALS[network][protocol], strict=True), "x--", color=colour, label=f"uniform bits, {protocol}")
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
    rows = load("results.jsonl")
    text = INTRODUCTION.replace("{networks}", "resnet20|vit") + table(rows) + machines(rows) + means(rows)
    text += rates(load("rate.jsonl")) + calibrations(load("calibrate.jsonl"))
    text += files(load("results-file.jsonl")) + parities(load("results-parity.jsonl")) + latencies(load("latency.jsonl"))
    text += ablations(HERE / "ablations")
    text += searches(load("search.jsonl")) + surrogates(load("surrogate.jsonl"))
    text += faults(load("results-faults.jsonl"))
    (HERE / "RESULTS.md").write_text(text)
    picture(rows)


if __name__ == "__main__":
    main()
