"""What every data source is asked for and answers: a request in, splits out; and how one set becomes three."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hirelc.batches import AUGMENTATIONS, Batches, Inputs, Normalisation, Sealed, TensorBatches, map_inputs
from hirelc.config import TrainConfig
from hirelc.data_checks import check_classes, check_targets
from hirelc.errors import DataError
from hirelc.seeds import stream_seed

NORMALISATIONS: dict[str, Normalisation] = {
    "none": (0.0, 1.0),
    "half": (0.5, 0.5),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
FEW_SAMPLES = 100  # on which differences of a point cannot be seen
HELD_OUT = 10  # one of so many samples goes to each split that the data set does not bring


@dataclass(frozen=True)
class Splits:
    """A data set as the search sees it.

    :param train: for fine-tuning, sensitivity and calibration
    :param validation: what every policy of the search is measured on
    :param test: sealed until the search is over; None when there is no such split
    :param description: one line for people: what it is and how it is split
    :param classes: labels run from 0 to classes - 1; 0 where there are no classes
    :param notes: what was left out or is odd, in words for people
    """

    train: Batches
    validation: Batches
    test: Sealed | None
    description: str
    classes: int
    notes: tuple[str, ...] = ()

    def check_classes(self, outputs: int) -> None:
        """:raises DataError: the labels do not fit a network with that many outputs"""
        check_classes(self.classes, outputs, self.description)


@dataclass(frozen=True)
class Request:
    """How a data set is wanted.

    :param augment: "auto" (what suits the source), None, "shift" or "shift-flip"
    :param targets: what the task wants them to be, see `Task.targets`
    :param image: (channels, height, width) of images from files; None takes the size that all of them have
    :param normalise: of images from files: "imagenet", "half", "none", "own" (their own statistics), or (mean, std)
    :param tokenizer: a local folder with a tokenizer of transformers
    :param max_tokens: longer texts are cut
    :param classes: names of the classes in the order of the network's outputs; None sorts the names that occur
    """

    batch_size: int = TrainConfig.batch_size
    train_limit: int | None = None
    augment: str | None = "auto"
    seed: int = 0
    targets: str = "classes"
    image: tuple[int, int, int] | None = None
    normalise: str | Normalisation = "imagenet"
    tokenizer: str | None = None
    max_tokens: int = 256
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise DataError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.train_limit is not None and self.train_limit < 1:
            raise DataError(f"train_limit must be at least 1, not {self.train_limit}")
        if self.augment not in (*AUGMENTATIONS, "auto"):
            raise DataError(f"unknown augmentation {self.augment!r}: use auto, {', '.join(map(str, AUGMENTATIONS))}")
        if isinstance(self.normalise, str) and self.normalise not in (*NORMALISATIONS, "own"):
            raise DataError(f"unknown normalisation {self.normalise!r}: use own, {', '.join(NORMALISATIONS)}")
        if self.max_tokens < 1:
            raise DataError(f"max_tokens must be at least 1, not {self.max_tokens}")

    @property
    def labelled(self) -> bool:
        return self.targets != "none"

    def augmentation(self, suits: str | None) -> str | None:
        return suits if self.augment == "auto" else self.augment


Source = Callable[[str, Request], Splits]
Table = tuple[Inputs, Tensor]  # the samples of one split


def in_memory(
    tables: Mapping[str, Table],
    request: Request,
    title: str,
    where: str,
    classes: int | None,
    suits: str | None,
    pixels: Normalisation | None,
    notes: tuple[str, ...] = (),
) -> Splits:
    """Splits over samples in memory.

    :param tables: under "train", "validation" and "test"
    :param classes: how many there are; None counts them
    :param suits: the augmentation that "auto" means
    :param pixels: (mean, std) of uint8 pixels / 255
    """
    shape = _shapes(tables["train"][0])
    if classes is None:
        counted = request.targets in ("classes", "positions", "tokens")
        classes = max(int(y.max()) for _, y in tables.values()) + 1 if counted else 0
    for name, (x, y) in tables.items():
        if _shapes(x) != shape:
            raise DataError(f"{where}: {name} images are {_shapes(x)}, training images {shape}: make them alike")
        check_targets(y, request.targets, classes or None, f"{where}, {name} labels")
    x, y = tables["train"]
    x, y = map_inputs(x, lambda tensor: tensor[: request.train_limit]), y[: request.train_limit]
    train = TensorBatches(x, y, request.batch_size, request.augmentation(suits), pixels)
    held = {name: TensorBatches(*tables[name], request.batch_size, None, pixels) for name in ("validation", "test")}
    counts = f"{train.samples} train, {held['validation'].samples} search-validation, {held['test'].samples} test"
    counts += small_words(train.samples, held["validation"].samples, request.batch_size)
    return Splits(train, held["validation"], Sealed(held["test"]), f"{title}: {counts}", classes, notes)


def small_words(train: int, validation: int, batch_size: int) -> str:
    """A word about splits so small that one batch, or one sample, decides."""
    words = ""
    if train < batch_size:
        words += f"; fewer training samples than a batch of {batch_size}: every step sees all of them"
    if validation < FEW_SAMPLES:
        words += f"; little to measure on: one search-validation sample is {100 / validation:.1f} points"
    return words


def carve(tables: dict[str, Table], where: str, seed: int, by_class: bool = False) -> dict[str, Table]:
    """Adds the splits that are missing: a tenth of the training samples each, drawn by the seed.

    :param tables: "train", and perhaps "validation" and "test"
    :param by_class: draw the same share of every class, so that none is missing from a split
    """
    x, y = tables["train"]
    missing = [name for name in ("validation", "test") if name not in tables]
    part = max(1, len(y) // HELD_OUT)
    if len(y) <= part * len(missing):
        raise DataError(f"{where}: {len(y)} samples are too few to carve out {' and '.join(missing)}: give more")
    if not missing:
        return tables
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(stream_seed(seed, "split")))
    if by_class and y.dim() == 1:
        order = _spread(order, y)
    carved = dict(tables)
    for name in missing:
        rows, order = order[:part].sort().values, order[part:]
        carved[name] = (map_inputs(x, lambda tensor, rows=rows: tensor[rows]), y[rows])  # type: ignore[misc]
    rows = order.sort().values
    carved["train"] = (map_inputs(x, lambda tensor: tensor[rows]), y[rows])
    return carved


def _spread(order: Tensor, y: Tensor) -> Tensor:
    """The same samples in an order of which any stretch holds each class in its share."""
    rank = torch.empty(len(y))
    for label in torch.unique(y):
        members = order[y[order] == label]
        rank[members] = (torch.arange(len(members)) + 0.5) / len(members)
    # by the place within their class, all classes side by side
    return order[rank[order].argsort(stable=True)]


def _shapes(x: Inputs) -> object:
    if isinstance(x, Tensor):
        return tuple(x.shape[1:])
    pairs = x.items() if isinstance(x, Mapping) else enumerate(x)
    return {key: tuple(tensor.shape[1:]) for key, tensor in pairs}


def pixel_statistics(x: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of uint8 pixels / 255, to four digits."""
    counts = torch.bincount(x.flatten(), minlength=256).double()
    values = torch.arange(256).double() / 255
    mean = (counts * values).sum() / counts.sum()
    std = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
    return round(float(mean), 4), max(round(float(std), 4), 1e-4)


def normalisation(request: Request, x: Tensor) -> Normalisation:
    """(mean, std) of images from files, as the request says; of one channel, where there is one."""
    if request.normalise == "own":
        return pixel_statistics(x)
    wish = NORMALISATIONS[request.normalise] if isinstance(request.normalise, str) else request.normalise
    mean, std = (part if isinstance(part, tuple) else (part,) * x.shape[1] for part in wish)
    if len(mean) != x.shape[1]:
        if x.shape[1] != 1:
            raise DataError(f"a normalisation of {len(mean)} channels does not fit images of {x.shape[1]}: use --normalise own")
        mean, std = ((sum(part) / len(part),) for part in (mean, std))
    return mean, std
