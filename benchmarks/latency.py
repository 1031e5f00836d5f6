"""How fast compressed networks run as integer ONNX models, beside their originals in fp32, in the same run.

    python benchmarks/latency.py --brief                          # both networks, batch 1 and 64, one thread, minutes
    python benchmarks/latency.py --only vit --bits 8 --keep 0.75 --align 8

A MobileNetV2 at 224 pixels and a ViT-Tiny, random weights, every block kernel in the same few bits, no training: times
do not depend on the values. Prints a table, and appends a row to latency.jsonl. Quote the ratios: the models take turns
in one process, so that other work on the machine slows both. A row says how busy the machine was (`load`, before and
after, of `cores`); where that is above the threads used, compare `processor`, the ratio of processor time, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers as hf
from torch import nn

from hirelc.compression.activations import attach, attached, observe
from hirelc.compression.apply import apply
from hirelc.export.bench import Latency, count_macs, float_model, installed_runtimes, peak_memory, resized, time_models
from hirelc.export.onnx import Settings, StoredKernelCodes, export_network
from hirelc.export.runtime import feed, session
from hirelc.network.trace import original_bytes, trace
from hirelc.policy import Choice, Granularity, Policy

HERE = Path(__file__).parent
RESULTS = HERE / "latency.jsonl"


def cnn() -> nn.Module:
    """MobileNetV2 with statistics of its own, so that activations have ordinary sizes."""
    network = hf.MobileNetV2ForImageClassification(hf.MobileNetV2Config(image_size=224))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 224, 224))
    return network.eval()


def vit() -> nn.Module:
    """ViT-Tiny: 192 wide, 12 deep, 3 heads, patches of 16."""
    config = hf.ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, image_size=224, num_labels=1000
    )
    return hf.ViTForImageClassification(config).eval()


NETWORKS = {"cnn": cnn, "vit": vit}


def integer_model(
    network: nn.Module, inputs: Any, bits: int, keep: float, multiple: int, weights: str
) -> tuple[onnx.ModelProto, nn.Module]:
    """The network under one uniform policy, exported; and the slim network itself."""
    spec = replace(trace(network, inputs[:2]), align=multiple)
    named = dict(network.named_parameters())
    policy = Policy.of(
        {k.name: Choice(8 if k.block is None else bits, keep, granularity=Granularity.PER_CHANNEL) for k in spec.kernels}
    )
    compressed = apply(network, spec, policy, {k.name: named[k.name].detach().square() for k in spec.kernels}).eval()
    slim, kernels = compressed.network, []
    with torch.no_grad():
        quantizers, values = compressed.quantizer_of(), compressed.quantized()
        for kernel in spec.kernels:
            weight = slim.get_parameter(kernel.name)
            codes = quantizers[kernel.name].codes(weight)
            kernels.append(StoredKernelCodes(kernel.name, tuple(weight.shape), kernel.channel_dim, codes))
            weight.copy_(values[kernel.name])
    attach(slim, observe(slim, [k.name for k in kernels], [inputs]).sites)
    return export_network(slim, kernels, inputs, Settings(weights=weights), {})[0], slim


def profile(model: bytes, inputs: Any) -> dict[str, float]:
    """Milliseconds per operator type, of one call."""
    with tempfile.TemporaryDirectory() as folder:
        running = session(model, 1, f"{folder}/profile")
        for _ in range(3):
            running.run(None, feed(running, inputs))
        events = json.loads(Path(running.end_profiling()).read_text())
    spent: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"] / 3000
    return dict(sorted(spent.items(), key=lambda item: -item[1])[:8])


def compared(name: str, runtime: str, batch: int, found: list[Latency]) -> dict[str, Any]:
    """Both models at one batch size."""
    original, compressed = ({e.model: e for e in found if e.batch == batch}[which] for which in ("original", "compressed"))
    speedup = original.milliseconds / compressed.milliseconds
    processor = original.processor_ms / compressed.processor_ms
    print(
        f"{name:4} {runtime:11} batch {batch:3}: fp32 {original.milliseconds:9.2f} ms, integer "
        f"{compressed.milliseconds:9.2f} ms, {speedup:.2f}x ({processor:.2f}x in processor time); load {load():.1f}",
        flush=True,
    )
    times = {e.model: [round(v, 2) for v in (e.milliseconds, *e.spread)] for e in (original, compressed)}
    return {"runtime": runtime, "batch": batch, "speedup": round(speedup, 3), "processor": round(processor, 3), **times}


def load() -> float:
    """Mean number of processes that wanted a core in the last minute."""
    return round(os.getloadavg()[0], 1)


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    before = load()
    network = NETWORKS[name]()
    inputs = torch.randn(4, 3, 224, 224)
    original = float_model(network, inputs).SerializeToString()
    model, slim = integer_model(network, inputs, args.bits, args.keep, args.align, args.weights)
    compressed = model.SerializeToString()
    models = {"original": original, "compressed": compressed}
    row: dict[str, Any] = {
        "network": name,
        "bits": args.bits,
        "keep": args.keep,
        "align": args.align,
        "weights": args.weights,
        "threads": args.threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "niceness": os.nice(0),
        "date": time.strftime("%Y-%m-%d"),
        "sites": len(attached(slim)),
        "macs": [count_macs(network, inputs), count_macs(slim, inputs)],
        "bytes": {"safetensors": original_bytes(network), "fp32 ONNX": len(original), "integer ONNX": len(compressed)},
        "times": [],
    }
    for runtime in installed_runtimes() if args.openvino else installed_runtimes()[:1]:
        found = time_models(models, inputs, args.batch, args.threads, args.repeats, runtime)
        row["times"] += [compared(name, runtime, batch, found) for batch in args.batch]
    row["load"] = [before, load()]
    if args.brief:
        return row
    largest = resized(inputs, max(args.batch))
    row["peak_mib"] = {what: round(peak_memory(content, largest, args.threads)) for what, content in models.items()}
    row["operators"] = {what: profile(content, resized(inputs, 16)) for what, content in models.items()}
    print("     peak memory, MiB:", row["peak_mib"], "| MACs:", row["macs"], "| bytes:", row["bytes"])
    for what, spent in row["operators"].items():
        print(f"     {what}, ms at batch 16:", ", ".join(f"{op} {ms:.1f}" for op, ms in spent.items()))
    print("     operators of the integer model:", dict(Counter(node.op_type for node in model.graph.node).most_common(8)))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(NETWORKS))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--keep", type=float, default=1.0)
    parser.add_argument("--align", type=int, default=1)
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--openvino", action="store_true")
    parser.add_argument("--brief", action="store_true", help="times only: no peak memory, no operators")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    np.random.seed(0)
    for name in [args.only] if args.only else NETWORKS:
        row = measure(name, args)
        with RESULTS.open("a") as results:
            results.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
