"""python tests/golden/make.py: writes the golden files anew.

Only after a bump of VERSION in src/hirelc/artifact/container.py: files of one version never change their bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from golden_contents import GOLDEN

from hirelc.artifact.container import read, write
from hirelc.artifact.contents import Contents
from hirelc.compression.fakequant import restore

HERE = Path(__file__).parent


def recorded(contents: Contents) -> dict[str, Any]:
    """All that a file gives back, in numbers that JSON holds exactly (infinities and names as text)."""
    layout = contents.layout
    kernels = {}
    for stored in layout.kernels:
        found = contents.kernels[stored.name]
        weight = restore(found, stored.shape, stored.channel_dim)
        kernels[stored.name] = {
            "choice": [stored.choice.bits, stored.choice.number_type.value, stored.choice.granularity.value],
            "channel_dim": stored.channel_dim,
            "codes": found.codes.tolist(),
            "scales": found.scale.ravel().tolist(),
            "zero_point": found.zero_point,
            "weight_shape": list(weight.shape),
            "weight_bits": weight.view(torch.int32).flatten().tolist(),
        }
    rest = {}
    for tensor in layout.rest:
        value = contents.value(tensor)
        bits = value if value.dtype == torch.int64 else value.view(torch.int32)
        rest[tensor.name] = {"kind": tensor.kind, "shape": list(value.shape), "bits": bits.flatten().tolist()}
    couplings = [
        {
            "units": list(kept),
            "of": stored.coupling.units,
            "members": [[m.tensor, m.dim, list(m.starts), m.width] for m in stored.coupling.members],
            "attributes": [[a.module, a.attribute, a.per_unit] for a in stored.coupling.attributes],
        }
        for stored, kept in zip(layout.couplings, contents.kept.units.values(), strict=True)
    ]
    rows = {r.kernel: {"of": r.full, "kept": list(contents.kept.rows[r.kernel])} for r in layout.rows}
    sites = [[a.module, a.side, a.scale, a.zero_point] for a in contents.activations]
    return {"kernels": kernels, "rest": rest, "couplings": couplings, "rows": rows, "activations": sites}


def main() -> None:
    for name, make in GOLDEN.items():
        data = write(make())
        (HERE / f"{name}.hirelc").write_bytes(data)
        (HERE / f"{name}.json").write_text(json.dumps(recorded(read(data)), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
