"""Texts in a table, `csv:FILE:text,label`, read with a tokenizer from a local folder.

Without a label column the texts themselves are the targets (a language model) or there are none (distillation).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hirelc.batches import no_targets
from hirelc.errors import DataError
from hirelc.metrics import IGNORED
from hirelc.sources.base import Request, Splits, Table, carve, in_memory

MAY_BE_EMPTY = 0.01  # share of the rows
NEW_FIELD_LIMIT = 1 << 27  # characters of one cell
ENDLESS = 1_000_000  # a tokenizer that knows no limit says an astronomic number


def csv_texts(rest: str, request: Request) -> Splits:
    """The source `csv:FILE:text,label`."""
    file, _, columns = rest.rpartition(":")
    names = [name.strip() for name in columns.split(",") if name.strip()]
    if not file or not 1 <= len(names) <= 2:
        raise DataError(f"csv:{rest}: give csv:FILE:text,label, the column of the text and that of the label (if any)")
    path = Path(file).expanduser()
    rows, notes = _read(path, names)
    texts = [row[0] for row in rows]
    labels = [row[1] for row in rows] if len(names) == 2 else None
    found = text_tables({"train": (texts, labels)}, request, str(path))
    tables = carve(found.tables, str(path), request.seed, by_class=request.targets == "classes")
    return in_memory(tables, request, f"{path.name} ({found.words})", str(path), found.classes, None, None, notes + found.notes)


class Tokenized:
    """Texts as token ids, and what was found on the way.

    :ivar tables: per split, a dict of input_ids and attention_mask (samples, tokens), and targets
    :ivar classes: how many; None where they are to be counted
    """

    def __init__(self, tables: dict[str, Table], classes: int | None, words: str, notes: tuple[str, ...]) -> None:
        self.tables, self.classes, self.words, self.notes = tables, classes, words, notes


def text_tables(parts: dict[str, tuple[list[str], list[Any] | None]], request: Request, where: str) -> Tokenized:
    """Tokenizes all splits to one length, and turns labels into numbers.

    :param parts: per split, texts and labels
    :raises DataError: no tokenizer, labels missing or of the wrong kind
    """
    if request.targets not in ("classes", "values", "tokens", "none"):
        raise DataError(f"{where}: a table of texts gives one label for each, but the task wants {request.targets}")
    tokenizer = load_tokenizer(request.tokenizer)
    limit = min(request.max_tokens, tokenizer.model_max_length if tokenizer.model_max_length < ENDLESS else request.max_tokens)
    lengths = [min(limit, len(ids)) for texts, _ in parts.values() for ids in tokenizer(texts, verbose=False)["input_ids"]]
    length, names = max(lengths), _names(parts, request, where)
    tables: dict[str, Table] = {}
    for split, (texts, labels) in parts.items():
        encoded = tokenizer(texts, truncation=True, max_length=length, padding="max_length", return_tensors="pt")
        inputs = {key: encoded[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in encoded}
        tables[split] = (inputs, _targets(labels, inputs, names, request, f"{where}, {split} labels"))
    cut = sum(n == limit for n in lengths)
    notes = (f"{cut} of {len(lengths)} texts fill or exceed {limit} tokens and are cut there",) if cut else ()
    counted = len(names) if names else len(tokenizer) if request.targets == "tokens" else None
    return Tokenized(tables, counted if request.targets in ("classes", "tokens") else 0, f"{length} tokens each", notes)


def load_tokenizer(folder: str | None) -> Any:
    """A tokenizer of transformers from a local folder; padded with its end-of-text token when it has no other.

    :raises DataError: transformers or the folder is missing, or it holds no tokenizer
    """
    if folder is None:
        raise DataError("texts need a tokenizer: give --tokenizer DIR, a folder written by tokenizer.save_pretrained")
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise DataError("texts need transformers: pip install 'hirelc[hf]'") from error
    local = Path(folder).expanduser().is_dir()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=local, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{folder}: no tokenizer can be read there: {reason}: write one with tokenizer.save_pretrained"
        ) from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise DataError(f"{folder}: the tokenizer has neither a padding nor an end token: set its pad_token and save it")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def _read(path: Path, names: Sequence[str]) -> tuple[list[list[str]], tuple[str, ...]]:
    """Rows of the columns wanted; rows without a text are left out up to a limit."""
    rows, empty = [], []
    csv.field_size_limit(NEW_FIELD_LIMIT)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in names if name not in (reader.fieldnames or ())]
            if missing:
                there = ", ".join(reader.fieldnames or ()) or "none"
                raise DataError(
                    f"{path}: there is no column {missing[0]!r} (there is: {there}): name the columns as the first line does"
                )
            for row in reader:
                cells = [row[name] for name in names]
                if not (cells[0] or "").strip():
                    empty.append(reader.line_num)
                elif any(cell is None or not cell.strip() for cell in cells):
                    raise DataError(f"{path}, line {reader.line_num}: the {names[-1]} is missing: give it, or remove the line")
                else:
                    rows.append(cells)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}): give a .csv file with a first line of column names"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table in UTF-8 ({error}): save it as CSV in UTF-8") from error
    if not rows:
        raise DataError(f"{path}: the table is empty: give at least one row with a text")
    if not empty:
        return rows, ()
    words = f"{len(empty)} of {len(rows) + len(empty)} rows have no text, the first is line {empty[0]}"
    if len(empty) > MAY_BE_EMPTY * (len(rows) + len(empty)):
        raise DataError(f"{path}: {words}: more than {MAY_BE_EMPTY:.0%}; repair or remove them")
    return rows, (f"{words}; they are left out",)


def _names(parts: dict[str, tuple[list[str], list[Any] | None]], request: Request, where: str) -> dict[str, int]:
    """The number of each class; numbers stand for themselves."""
    if request.targets != "classes":
        return {}
    if any(labels is None for _, labels in parts.values()):
        raise DataError(f"{where}: the task needs labels: give their column too, as in text,label")
    present = {str(label).strip() for _, labels in parts.values() for label in labels or ()}
    if all(label.lstrip("-").isdigit() for label in present):
        highest = max(map(int, present))
        return {str(number): number for number in range(min(0, *map(int, present)), highest + 1)}
    if request.classes is not None:
        unknown = sorted(present - set(request.classes))
        if unknown:
            raise DataError(
                f"{where}: the label {unknown[0]!r} is none of the network's classes: {', '.join(request.classes[:10])}"
            )
        return {name: number for number, name in enumerate(request.classes)}
    return {name: number for number, name in enumerate(sorted(present))}


def _targets(
    labels: list[Any] | None, inputs: dict[str, Tensor], names: dict[str, int], request: Request, where: str
) -> Tensor:
    if request.targets == "none":
        return no_targets(len(inputs["input_ids"]))
    if request.targets == "tokens":
        return inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
    if labels is None:
        raise DataError(f"{where}: the task needs labels: give their column too, as in text,label")
    if request.targets == "classes":
        return torch.tensor([names[str(label).strip()] for label in labels])
    try:
        return torch.tensor([float(label) for label in labels])
    except ValueError as error:
        raise DataError(f"{where}: {error}: a regression needs numbers") from error
