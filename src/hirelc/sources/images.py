"""Images in files, a folder for each class: `imagefolder:DIR`.

DIR/train, DIR/val (or valid, validation) and DIR/test are the splits where there are such folders; else a tenth of each
class goes to search-validation and test, by the seed. Every file is decoded once before anything is trained: what cannot
be read is counted and named. Images that fit in memory stay there; more of them are decoded again at each use.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hirelc.batches import DatasetBatches, Normalisation, Sealed, no_targets
from hirelc.errors import DataError
from hirelc.sources.base import Request, Splits, Table, carve, in_memory, normalisation, small_words

SPLIT_FOLDERS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test",)}
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAY_FAIL = 0.01  # share of the files
SHOWN_FILES = 5
IN_MEMORY_BYTES = 2 << 30  # of pixels
READERS = 4  # threads that decode


def imagefolder(rest: str, request: Request) -> Splits:
    """The source `imagefolder:DIR`."""
    folder = Path(rest).expanduser()
    if not rest or not folder.is_dir():
        raise DataError(f"imagefolder:{rest}: no such folder: give one that holds a folder of images for each class")
    if request.targets not in ("classes", "none"):
        raise DataError(f"imagefolder:{rest}: folders name classes, but the task wants {request.targets}: use npz: or python:")
    found = _split_folders(folder)
    names = _class_names(found, request, folder)
    files = {split: _files(root, names, request.labelled) for split, root in found.items()}
    return from_images(files, names if request.labelled else [], request, folder.name, str(folder))


def from_images(
    files: dict[str, list[tuple[Any, int]]], names: Sequence[str], request: Request, title: str, where: str
) -> Splits:
    """Splits of images that still have to be decoded.

    :param files: per split, (a path, or the bytes of a file) and class
    """
    for split, entries in files.items():
        if not entries:
            raise DataError(
                f"{where}: there are no images for the {split} split: put files ending in {', '.join(ENDINGS)} there"
            )
    everything = [entry for entries in files.values() for entry, _ in entries]
    decoder, notes = _look_at_all(everything, request, where)
    labels = {split: _labels([label for _, label in entries], request) for split, entries in files.items()}
    indices: dict[str, Table] = {}
    start = 0
    for split, entries in files.items():
        rows = torch.arange(start, start + len(entries))
        good = decoder.good[rows]
        _check_left(labels[split], good, names, f"{where}, {split} split")
        indices[split] = (rows[good], labels[split][good])
        start += len(entries)
    indices = carve(indices, where, request.seed, by_class=True)
    if decoder.pixels is not None:
        pixels = decoder.pixels
        tables: dict[str, Table] = {split: (pixels[rows], y) for split, (rows, y) in indices.items()}  # type: ignore[index]
        scale = normalisation(request, tables["train"][0])  # type: ignore[arg-type]
        return in_memory(tables, request, title, where, len(names), "shift", scale, notes)
    return _lazy(everything, indices, decoder, request, f"{title} (decoded at each use)", len(names), notes)


def _check_left(labels: Tensor, good: Tensor, names: Sequence[str], where: str) -> None:
    """:raises DataError: no image at all can be read, or none of a class"""
    if not bool(good.any()):
        raise DataError(f"{where}: none of {len(good)} images can be read: give images in {', '.join(ENDINGS)}")
    lost = sorted(set(labels.tolist()) - set(labels[good].tolist())) if names else []
    if lost:
        raise DataError(f"{where}: no image of the class {names[lost[0]]!r} can be read: repair them")


def _split_folders(folder: Path) -> dict[str, Path]:
    """The folder of each split; the given one alone when it has no training folder."""
    found = {}
    for split, spellings in SPLIT_FOLDERS.items():
        path = next((folder / name for name in spellings if (folder / name).is_dir()), None)
        if path is not None:
            found[split] = path
    return found if "train" in found else {"train": folder}


def _class_names(found: dict[str, Path], request: Request, folder: Path) -> list[str]:
    if not request.labelled:
        return []
    present = {split: sorted(path.name for path in root.iterdir() if path.is_dir()) for split, root in found.items()}
    names = list(request.classes or present["train"])
    if len(present["train"]) < 2:
        raise DataError(
            f"{found['train']}: {len(present['train'])} class folders: give a folder of images for each of at least two "
            "classes, or use --task distill, which needs no classes"
        )
    for split, there in present.items():
        unknown = [name for name in there if name not in names]
        if unknown:
            raise DataError(f"{found[split]}: the class {unknown[0]!r} is none of the {len(names)} known ones: {_few(names)}")
        missing = [name for name in names if name not in there]
        if missing and request.classes is None:
            raise DataError(
                f"{found[split]}: the class {missing[0]!r} is missing from the {split} split: give some of its images"
            )
    return names


def _files(root: Path, names: Sequence[str], labelled: bool) -> list[tuple[Any, int]]:
    if not labelled:
        return [(path, 0) for path in _images_below(root)]
    found = {name: _images_below(root / name) for name in names}
    empty = [name for name, paths in found.items() if not paths and (root / name).is_dir()]
    if empty:
        raise DataError(f"{root}: the class {empty[0]!r} has no images: put files ending in {', '.join(ENDINGS)} there")
    return [(path, label) for label, name in enumerate(names) for path in found[name]]


def _images_below(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in ENDINGS and not path.name.startswith(".")]


def _labels(labels: list[int], request: Request) -> Tensor:
    return torch.tensor(labels) if request.labelled else no_targets(len(labels))


@dataclass(frozen=True)
class _Decoder:
    """What the first look at all files leaves.

    :param shape: (channels, height, width) that every image is brought to
    :param good: which files can be read
    :param pixels: of all files, uint8; None when they are too many to keep
    """

    shape: tuple[int, int, int]
    good: Tensor
    pixels: Tensor | None


def _look_at_all(entries: Sequence[Any], request: Request, where: str) -> tuple[_Decoder, tuple[str, ...]]:
    """Decodes every image once.

    :raises DataError: more than 1 % cannot be read, or they differ in size and none was asked for
    """
    shape = request.image or _common_shape(entries, where)
    keep = len(entries) * shape[0] * shape[1] * shape[2] <= IN_MEMORY_BYTES
    pixels = np.zeros((len(entries), *shape), np.uint8) if keep else None
    failed: dict[int, str] = {}

    def look(index: int) -> None:
        try:
            decoded = decode(entries[index], shape)
        except unreadable() as error:
            failed[index] = " ".join(str(error).split()) or type(error).__name__
            return
        if pixels is not None:
            pixels[index] = decoded

    with ThreadPoolExecutor(READERS) as pool:
        for _ in pool.map(look, range(len(entries))):
            pass
    notes: tuple[str, ...] = ()
    if failed:
        bad = [f"{_name(entries[i])} ({failed[i]})" for i in sorted(failed)]
        words = f"{len(failed)} of {len(entries)} images cannot be read: {_few(bad)}"
        if len(failed) > MAY_FAIL * len(entries):
            raise DataError(f"{where}: {words}: more than {MAY_FAIL:.0%}; repair or remove them")
        notes = (f"{words}; they are left out",)
    good = torch.ones(len(entries), dtype=torch.bool)
    good[list(failed)] = False
    return _Decoder(shape, good, None if pixels is None else torch.from_numpy(pixels)), notes


def _common_shape(entries: Sequence[Any], where: str) -> tuple[int, int, int]:
    """The size of all images, where there is one; grey only when all are."""
    sizes: dict[tuple[int, int], Any] = {}
    grey = True
    for entry in entries:
        try:
            with _opened(entry) as image:
                sizes.setdefault((image.height, image.width), entry)
                grey = grey and image.mode in ("1", "L", "I;16", "I", "F")
        except unreadable():
            continue
        if len(sizes) > 1:
            (a, one), (b, other) = list(sizes.items())[:2]
            raise DataError(
                f"{where}: images differ in size ({_name(one)} is {a[0]}x{a[1]}, {_name(other)} {b[0]}x{b[1]}): "
                "say the network's own with --image-size, as in --image-size 224"
            )
    if not sizes:
        raise DataError(f"{where}: none of {len(entries)} images can be read: give images in {', '.join(ENDINGS)}")
    (height, width) = next(iter(sizes))
    return (1 if grey else 3), height, width


def decode(entry: Any, shape: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image as uint8 (channels, height, width): upright, resized to cover the shape, cut to its centre.

    :param entry: a path, or the bytes of a file
    """
    from PIL import Image, ImageOps

    channels, height, width = shape
    with _opened(entry) as opened:
        opened.load()
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _eight_bits(image)
    if image.mode in ("P", "LA", "PA", "RGBA") and ("A" in image.mode or "transparency" in image.info):
        flat = Image.new("RGBA", image.size, "white")  # what is transparent shows the paper
        image = Image.alpha_composite(flat, image.convert("RGBA"))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    values = np.asarray(image, np.uint8)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def _eight_bits(image: Any) -> Any:
    """Deep grey images, brought from their own type's range to 0..255."""
    from PIL import Image

    values = np.asarray(image, np.float64)
    if image.mode == "F":
        values = values * 255 if values.max(initial=0) <= 1 else values
    elif values.max(initial=0) > 255:
        values = values / 257  # 65,535 / 255
    return Image.fromarray(np.clip(values.round(), 0, 255).astype(np.uint8))


def _opened(entry: Any) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(entry) if isinstance(entry, bytes) else entry)


def unreadable() -> tuple[type[Exception], ...]:
    """What Pillow raises on files that are no images, are cut off, or announce absurd sizes.

    :raises DataError: Pillow is not installed
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("reading images needs Pillow: pip install 'hirelc[hf]'") from error
    return (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class _Decoded(Dataset[Any]):
    """Images that are decoded when they are asked for."""

    def __init__(self, entries: list[Any], y: Tensor, shape: tuple[int, int, int], pixels: Normalisation) -> None:
        self.entries, self.y, self.shape = entries, y, shape
        self.mean, self.std = (torch.tensor(part).reshape(-1, 1, 1) for part in pixels)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.from_numpy(decode(self.entries[index], self.shape).copy()).float() / 255
        return (image - self.mean) / self.std, self.y[index]


def _lazy(
    everything: list[Any],
    indices: dict[str, Table],
    decoder: _Decoder,
    request: Request,
    title: str,
    classes: int,
    notes: tuple[str, ...],
) -> Splits:
    if request.normalise == "own":
        raise DataError("--normalise own needs all images in memory, and they are too many: give imagenet, half or none")
    if request.augment not in (None, "auto"):
        raise DataError("--augment works on images in memory, and they are too many: use --augment none")
    scale = normalisation(request, torch.empty(0, *decoder.shape))

    def part(split: str, limit: int | None = None) -> DatasetBatches:
        rows, y = indices[split]
        chosen = [everything[i] for i in rows[:limit].tolist()]  # type: ignore[index, union-attr]
        return DatasetBatches(_Decoded(chosen, y[:limit], decoder.shape, scale), request.batch_size)

    train, validation, test = part("train", request.train_limit), part("validation"), part("test")
    counts = f"{train.samples} train, {validation.samples} search-validation, {test.samples} test"
    counts += small_words(train.samples, validation.samples, request.batch_size)
    return Splits(train, validation, Sealed(test), f"{title}: {counts}", classes, notes)


def _name(entry: Any) -> str:
    return f"an image of {len(entry):,} bytes" if isinstance(entry, bytes) else str(entry)


def _few(words: Iterable[str]) -> str:
    found = list(words)
    more = len(found) - SHOWN_FILES
    return ", ".join(found[:SHOWN_FILES]) + (f" and {more} more" if more > 0 else "")
