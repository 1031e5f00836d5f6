"""Whether exported networks answer as their files do, on the common benchmark's 10,000 test images.

    python benchmarks/parity.py --bench DIR --network resnet20 runs/mine/model.hirelc ...

Each file is exported in integers exactly as `hirelc export --data fashion-mnist` does it. *ranges* says where those of the
activations come from: the file (compressed with `--activations int8`: they took part in the fine-tuning), or 512 training
images. A refusal is a row, too. Rows go to results-parity.jsonl.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

import hirelc
from hirelc.common_benchmark import benchmark_network
from hirelc.data import load_data
from protocol import NETWORKS, commit

HERE = Path(__file__).parent


def parity_row(path: Path, bench: Path, network: str, folder: Path) -> dict[str, Any]:
    splits = load_data("fashion-mnist", batch_size=128, seed=0)
    assert splits.test is not None
    splits.test.unseal()
    view = hirelc.open_file(path)
    row: dict[str, Any] = {
        "file": path.name if path.name != "model.hirelc" else path.resolve().parent.name,
        "network": network,
        "bytes": view.size_bytes,
        "ratio": round((bench / f"{network}.safetensors").stat().st_size / view.size_bytes, 1),
        "ranges": "file" if view.activations else "training images",
    }
    begun = time.process_time()
    try:
        found = hirelc.export_onnx(
            path, lambda: benchmark_network(bench, network), folder / "net.onnx", data=splits.test, calibration=splits.train
        )
    except hirelc.NetworkError as error:
        return row | {"refused": str(error)}
    kinds = [kernel.stored_as for kernel in found.kernels]
    return row | {
        "onnx_bytes": found.size_bytes,
        "kernels": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "sites": found.sites,
        "samples": found.parity.samples,
        "agreement": round(found.parity.agreement, 2),
        "accuracy_file": found.parity.accuracy_file,
        "accuracy_onnx": found.parity.accuracy_onnx,
        "worst_layer": round(found.parity.worst_layer, 5),
        "processor_s": round(time.process_time() - begun, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help=".hirelc files")
    parser.add_argument("--bench", type=Path, required=True, help="folder with networks.py and the weights")
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--journal", type=Path, default=HERE / "results-parity.jsonl")
    args = parser.parse_args()
    about = {"commit": commit(), "versions": f"torch {torch.__version__}, onnx {onnx.__version__}"}
    about["versions"] += f", onnxruntime {onnxruntime.__version__}"
    with tempfile.TemporaryDirectory() as folder:
        for path in args.files:
            row = about | parity_row(path, args.bench, args.network, Path(folder))
            with args.journal.open("a") as journal:
                journal.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
