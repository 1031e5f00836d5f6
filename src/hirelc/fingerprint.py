"""What a run belongs to: network, weights, data, task, goal, settings and version, so that it never goes on with others."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from hirelc.batches import Batches, first_samples, tensors_of
from hirelc.run import Run
from hirelc.version import __version__

FINGERPRINT = "fingerprint.json"
SAMPLES = 512  # of each split, from its start: reading all of a folder of images would take minutes
_NAMES = {
    "hirelc": "the version of hirelc",
    "network": "the network's structure",
    "weights": "the network's weights",
    "train": "the fine-tuning split",
    "validation": "the search-validation split",
    "test": "the test split",
    "task": "the task",
    "goal": "the goal",
    "config": "the settings",
}


def fingerprint(run: Run) -> dict[str, Any]:
    """JSON-ready. Reads the first samples of both splits; of the test split only its size."""
    return {
        "hirelc": __version__,
        "network": _structure(run),
        "weights": _tensors_digest(dict([*run.model.named_parameters(), *run.model.named_buffers()])),
        "train": {"samples": run.train.samples, "digest": _data_digest(run.train)},
        "validation": {"samples": run.validation.samples, "digest": _data_digest(run.validation)},
        "test": None if run.test is None else {"samples": run.test.samples},
        "task": run.task.name,
        "goal": asdict(run.goal),
        "config": json.loads(json.dumps(run.config.to_json())),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was, in words."""
    found = []
    for name, words in _NAMES.items():
        before, after = then.get(name), now[name]
        if before != after:
            found.append(words + _detail(before, after))
    return found


def _detail(before: Any, after: Any) -> str:
    if isinstance(before, str | None) and isinstance(after, str | None) and max(len(str(before)), len(str(after))) < 40:
        return f" ({before}, now {after})"
    if isinstance(before, Mapping) and isinstance(after, Mapping) and "samples" in before:
        counts = before["samples"], after["samples"]
        return f" ({counts[0]} samples, now {counts[1]})" if counts[0] != counts[1] else " (other samples)"
    if before is None or after is None:
        return " (there was none)" if before is None else " (there is none now)"
    return ""


def _structure(run: Run) -> str:
    modules = [(name, type(m).__qualname__, _without_places(m.extra_repr())) for name, m in run.model.named_modules()]
    return hashlib.sha256(repr((modules, run.spec)).encode()).hexdigest()


def _without_places(text: str) -> str:
    """Where in memory an object lies says nothing about it."""
    return re.sub(r"0x[0-9a-fA-F]+", "", text)


def _data_digest(split: Batches) -> str:
    inputs, targets = first_samples(split, SAMPLES)
    return _tensors_digest({str(i): tensor for i, tensor in enumerate([*tensors_of(inputs), targets])})


def _tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
