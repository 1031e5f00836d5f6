"""The accuracy of a .hirelc file on a split, beside that of the original."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hirelc.artifact.load import load
from hirelc.data import Batches, Splits
from hirelc.errors import DataError, RunError
from hirelc.hf_models import PREFIX, has_weights
from hirelc.labelled import Labelled
from hirelc.measure.evaluate import accuracy
from hirelc.models import answers, check_fits, find_factory, load_network, settled
from hirelc.network.trace import original_bytes
from hirelc.task import CLASSIFICATION, Task

SPLITS = ("test", "validation")


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    :param size_bytes: of the whole .hirelc file
    :param original_bytes: of the fp32 safetensors file of the original
    :param accuracy: of the network read back from the file, in points of the task's metric
    :param metric: its name
    :param original: accuracy of the original on the same split; None when its weights were not given
    """

    file: str
    split: str
    samples: int
    size_bytes: int
    original_bytes: int
    accuracy: float
    original: float | None = None
    metric: str = CLASSIFICATION.name

    @property
    def ratio(self) -> float:
        return self.original_bytes / self.size_bytes

    @property
    def drop_points(self) -> float | None:
        return None if self.original is None else self.original - self.accuracy

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "drop_points": self.drop_points}


def evaluate_file(
    file: Path,
    model: str,
    splits: Splits,
    split: str = "test",
    *,
    weights: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    task: Task = CLASSIFICATION,
    task_name: str | None = None,
) -> Evaluation:
    """Reads a network back from its file and measures it.

    :param model: module:factory of the original
    :param split: "test" or "validation"
    :param weights: of the original, to measure that too; of hf:FOLDER they lie in the folder
    :param task_name: of the task, where the class of a network of Hugging Face follows from it
    :raises HirelcError: the file, the network and the data do not fit together, or there is no such split
    """
    if split not in SPLITS:
        raise RunError(f"unknown split {split!r}: use {' or '.join(SPLITS)}")
    data: Batches | None = splits.validation if split == "validation" else splits.test
    if data is None:
        raise DataError(f"{splits.description}: there is no test split: use --split validation")
    if splits.test is not None:
        splits.test.unseal()
    factory = find_factory(model, seed, task_name)
    compressed = load(file, factory)
    task = settled(task, compressed, splits.validation, device)
    outputs = check_fits(compressed, splits.validation, device, task)
    if task.targets != "none":
        splits.check_classes(outputs)
    known = weights is not None or task.label is not None or _has_weights(model)
    original = load_network(model, weights, seed, task_name) if known else factory().eval()
    score = None
    if known:
        check_fits(original, splits.validation, device, task)
        data = data if task.label is None else Labelled(data, answers(original, task, device))
        score = accuracy(original, data, task, device=device)
    return Evaluation(
        file=str(file),
        split=split,
        samples=data.samples,
        size_bytes=file.stat().st_size,
        original_bytes=original_bytes(original),
        accuracy=accuracy(compressed, data, task, device=device),
        original=score,
        metric=task.name,
    )


def _has_weights(model: str) -> bool:
    return model.startswith(PREFIX) and has_weights(model.removeprefix(PREFIX))
