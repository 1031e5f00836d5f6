"""What a command is given, as values: the task by its name, the data as the task and the network want them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hirelc.data import Splits, load_data
from hirelc.errors import DataError
from hirelc.hf_models import PREFIX, data_wishes, usual_task
from hirelc.models import find_task, load_network
from hirelc.sources.base import NORMALISATIONS
from hirelc.task import Task

DEFAULT_TASK = "image-classification"


@dataclass(frozen=True)
class DataOptions:
    """How files become samples; what is None follows from the network's own files, then from the data.

    :param image_size: "224", "224x320" (height, width) or "1x28x28" (channels first)
    :param normalise: "imagenet", "half", "none" or "own"
    :param tokenizer: a folder
    """

    image_size: str | None = None
    normalise: str | None = None
    tokenizer: str | None = None
    max_tokens: int | None = None

    def flags(self) -> list[str]:
        """As they are typed."""
        given = {
            "--image-size": self.image_size,
            "--normalise": self.normalise,
            "--tokenizer": self.tokenizer,
            "--max-tokens": self.max_tokens,
        }
        return [word for flag, value in given.items() if value is not None for word in (flag, str(value))]


def task_name(model: str, wanted: str | None) -> str:
    """The name of the task: as wanted, else what the head of a network of Hugging Face is for, else classification."""
    if wanted is not None:
        return wanted
    return usual_task(model.removeprefix(PREFIX)) if model.startswith(PREFIX) else DEFAULT_TASK


def read_inputs(
    model: str, data: str, task: str | None, options: DataOptions, *, labelled: bool = True, **request: Any
) -> tuple[Task, Splits]:
    """The task and the data set.

    :param model: as `--model` takes it
    :param labelled: False needs no labels, whatever the task
    :param request: batch_size, train_limit, augment, seed, see `load_data`
    :raises HirelcError: there is no such task, or the data cannot be read
    """
    found = find_task(task_name(model, task))
    wishes = data_wishes(model.removeprefix(PREFIX)) if model.startswith(PREFIX) else {}
    if options.image_size is not None:
        channels = wishes["image"][0] if "image" in wishes else 3
        wishes["image"] = image_shape(options.image_size, channels)
    if options.normalise is not None:
        if options.normalise not in (*NORMALISATIONS, "own"):
            raise DataError(f"--normalise {options.normalise}: use own, {', '.join(NORMALISATIONS)}")
        wishes["normalise"] = options.normalise
    if options.tokenizer is not None:
        wishes["tokenizer"] = options.tokenizer
    if options.max_tokens is not None:
        wishes["max_tokens"] = options.max_tokens
    return found, load_data(data, targets=found.targets if labelled else "none", **wishes, **request)


def read_again(kept: Mapping[str, Any]) -> tuple[nn.Module, Task, Splits]:
    """Network, task and data as an earlier command was given them.

    :param kept: what `inputs_json` made
    :raises HirelcError: they cannot be read any more
    """
    model, task, weights = kept["model"], kept["task"], kept["weights"]
    network = load_network(model, None if weights is None else Path(weights), kept["seed"], task_name(model, task))
    request = {name: kept[name] for name in ("batch_size", "train_limit", "augment", "seed")}
    judged, splits = read_inputs(model, kept["data"], task, DataOptions(**kept["options"]), **request)
    return network, judged, splits


def evaluate_command(file: Path, kept: Mapping[str, Any]) -> str:
    """What to type to evaluate a file with network and data of an earlier command.

    :param kept: what `inputs_json` made
    """
    words = ["hirelc", "evaluate", str(file), "--model", kept["model"], "--data", kept["data"]]
    words += [] if kept["weights"] is None else ["--weights", kept["weights"]]
    words += [] if kept["task"] is None else ["--task", kept["task"]]
    words += DataOptions(**kept["options"]).flags() + ([] if kept["seed"] == 0 else ["--seed", str(kept["seed"])])
    return shlex.join(words)


def inputs_json(
    model: str, weights: Path | None, data: str, task: str | None, options: DataOptions, **request: Any
) -> dict[str, Any]:
    """What `read_again` reads. Paths stay as they were typed.

    :param request: batch_size, train_limit, augment, seed
    """
    given = {"model": model, "weights": None if weights is None else str(weights), "data": data, "task": task}
    return {**given, "options": asdict(options), **request}


def image_shape(text: str, channels: int = 3) -> tuple[int, int, int]:
    """(channels, height, width) of "224", "224x320" or "1x28x28".

    :raises DataError: neither of these
    """
    sizes = text.lower().replace(",", "x").replace(" ", "").split("x")
    if not 1 <= len(sizes) <= 3 or not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise DataError(f"--image-size {text!r}: give 224, or height and width as in 224x320, or channels too as in 1x28x28")
    numbers = [int(size) for size in sizes]
    if len(numbers) == 3:
        channels = numbers[0]
        if channels not in (1, 3):
            raise DataError(f"--image-size {text!r}: images from files have 1 or 3 channels")
    return channels, numbers[-2] if len(numbers) > 1 else numbers[0], numbers[-1]
