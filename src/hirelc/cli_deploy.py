"""The commands that put a compressed network to work: export and bench. Arguments in, words out."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hirelc.cli_options import Json, MaxTokens, Seed, sample_shape
from hirelc.errors import DataError, RunError

if TYPE_CHECKING:
    from hirelc.batches import Batches
    from hirelc.data import Splits

File = Annotated[Path, typer.Argument(help="a .hirelc file")]
Model = Annotated[str, typer.Option(help="as for compress: module:factory, or hf:FOLDER or hf:ID")]
Task = Annotated[str | None, typer.Option("--task", help="as for compress")]
ImageSize = Annotated[str | None, typer.Option(help="of image files, as for compress")]
Normalise = Annotated[str | None, typer.Option(help="of image files, as for compress")]
Tokenizer = Annotated[str | None, typer.Option(help="folder of a tokenizer, as for compress")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command()(export)
    app.command()(bench)


def export(
    file: File,
    model: Model,
    onnx: Annotated[Path, typer.Option(help="the ONNX model to write")],
    data: Annotated[str | None, typer.Option(help="on which file and ONNX model are compared, as for compress")] = None,
    split: Annotated[str, typer.Option(help="that is compared: test or validation")] = "test",
    samples: Annotated[int, typer.Option(help="compared at most")] = 10_000,
    weights: Annotated[
        str, typer.Option(help="auto (INT4 where a kernel fits, else INT8), int8 or int4; the speed is the same")
    ] = "auto",
    activations: Annotated[str, typer.Option(help="int8 or float")] = "int8",
    input_shape: Annotated[
        str | None, typer.Option(help="shape of one sample without --data, as in 3,32,32; else guessed")
    ] = None,
    opset: Annotated[int, typer.Option(help="of the ONNX model: 18 or later, 21 for INT4")] = 21,
    task: Task = None,
    image_size: ImageSize = None,
    normalise: Normalise = None,
    tokenizer: Tokenizer = None,
    max_tokens: MaxTokens = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Writes a compressed network as an ONNX model in integers, checked against the file. Needs the extra hirelc\\[onnx].

    \b
    hirelc export runs/mine/model.hirelc --model mypkg.nets:make_net --onnx net.onnx --data images.npz

    Nothing is written when the ONNX model agrees with the file on less than 99.5 % of the samples.
    """
    _check_installed()
    from hirelc.export.onnx import Settings, export_onnx
    from hirelc.inputs import DataOptions, read_inputs, task_name
    from hirelc.models import find_factory, find_task
    from hirelc.words_deploy import export_words

    settings = Settings(opset, weights, activations, samples)
    compared = calibration = None
    judged = find_task(task_name(model, task))
    if data is not None:
        options = DataOptions(image_size, normalise, tokenizer, max_tokens)
        judged, splits = read_inputs(model, data, task, options, batch_size=128, seed=seed)
        compared, calibration = _chosen(splits, split), splits.train
    factory = find_factory(model, seed, task_name(model, task))
    example = _example(factory, input_shape)
    found = export_onnx(
        file, factory, onnx, data=compared, calibration=calibration, example=example, settings=settings, task=judged
    )
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else export_words(found, file.stat().st_size))


def bench(
    file: File,
    model: Model,
    onnx: Annotated[Path | None, typer.Option(help="as written by export; else made for the occasion")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="samples in a call; may be given again. Default: 1 and 64")] = None,
    threads: Annotated[int, typer.Option(help="of both models; 0: as many as torch uses")] = 0,
    repeats: Annotated[int, typer.Option(help="calls of each model")] = 20,
    input_shape: Annotated[str | None, typer.Option(help="shape of one sample, as in 3,32,32; else guessed")] = None,
    task: Task = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measures size, latency and memory against the fp32 original, both in onnxruntime. Needs the extra hirelc\\[onnx].

    \b
    hirelc bench runs/mine/model.hirelc --model mypkg.nets:make_net --onnx net.onnx --batch 1 --batch 64

    The two take turns in one run with the same threads. OpenVINO is timed too where it is installed.
    """
    _check_installed()
    from hirelc.export.bench import bench as run
    from hirelc.inputs import task_name
    from hirelc.models import find_factory
    from hirelc.words_deploy import bench_words

    factory = find_factory(model, seed, task_name(model, task))
    example = _example(factory, input_shape)
    found = run(file, factory, onnx, example=example, batches=tuple(batch or (1, 64)), threads=threads, repeats=repeats)
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else bench_words(found))


def _example(factory: Callable[[], Any], shape: str | None) -> Any:
    """Inputs of the shape that was asked for; None to guess."""
    from hirelc.network.example import example_of_shape

    return None if shape is None else example_of_shape(factory(), sample_shape(shape)).inputs


def _chosen(splits: Splits, name: str) -> Batches:
    """:raises HirelcError: there is no such split"""
    if name not in ("test", "validation"):
        raise RunError(f"unknown split {name!r}: use test or validation")
    if name == "validation":
        return splits.validation
    if splits.test is None:
        raise DataError(f"{splits.description}: there is no test split: use --split validation")
    splits.test.unseal()
    return splits.test


def _check_installed() -> None:
    """:raises RunError: the extra is not installed"""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise RunError(f"{name} is not installed: pip install 'hirelc[onnx]'")
