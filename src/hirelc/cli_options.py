"""What several commands share: options, and where their words go."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hirelc.cli_context import FOLDER, VERBOSE
from hirelc.errors import RunError

# torch is imported inside the commands, so that `hirelc --help` answers at once
if TYPE_CHECKING:
    from hirelc.progress import RichReporter


def _remember_verbose(ctx: typer.Context, value: bool) -> bool:
    ctx.meta[VERBOSE] = value
    return value


def _remember_folder(ctx: typer.Context, value: Path) -> Path:
    ctx.meta[FOLDER] = value
    return value


Model = Annotated[
    str, typer.Option(help="module:factory (takes no arguments, returns the network), or hf:FOLDER or hf:ID of transformers")
]
Weights = Annotated[Path | None, typer.Option(help=".safetensors file of the network's state dict")]
DATA_HELP = (
    "imagefolder:DIR, csv:FILE:text,label, hf-dataset:NAME_OR_DIR, fashion-mnist[:DIR], a folder of idx files, an .npz file, "
    "python:module:function, or demo"
)
Data = Annotated[str, typer.Option(help=DATA_HELP)]
Out = Annotated[Path, typer.Option(help="a new folder for the run", callback=_remember_folder)]
RUN_HELP = "the folder of a run, as given to --out"
Run = Annotated[Path, typer.Argument(help=RUN_HELP)]
WrittenRun = Annotated[Path, typer.Argument(help=RUN_HELP, callback=_remember_folder)]
Seed = Annotated[int, typer.Option(help="root of all randomness, data splits included")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Blocks = Annotated[str | None, typer.Option(help="regular expression for the module paths of the blocks; else by repetition")]
Json = Annotated[bool, typer.Option("--json", help="for programs instead of people")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="only the result and warnings")]
TRACK_HELP = "mlflow (a store in the run's folder) or mlflow:URI; TensorBoard, where installed, without asking; or none"
Track = Annotated[list[str] | None, typer.Option("--track", help=TRACK_HELP)]
Plain = Annotated[bool, typer.Option("--plain", help="one line per event, as where no terminal is: for logs")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="more lines; tracebacks", callback=_remember_verbose)]
TASK_HELP = (
    "image-classification, text-classification, token-classification, language-model, regression, segmentation, "
    "segmentation-iou, distill (no labels), distill-classes, distill-values, or module:name of a hirelc.Task; by default "
    "what the head of an hf: network is for, else image-classification"
)
TaskName = Annotated[str | None, typer.Option("--task", help=TASK_HELP)]
ImageSize = Annotated[str | None, typer.Option(help="of image files, as in 224, 224x320 or 1x28x28; else the network's own")]
Normalise = Annotated[str | None, typer.Option(help="of image files: imagenet, half, none or own; else the network's own")]
Tokenizer = Annotated[str | None, typer.Option(help="folder of a tokenizer of transformers; else the network's own")]
MaxTokens = Annotated[int | None, typer.Option(help="longer texts are cut")]
RATIO_HELP, DROP_HELP = "whole fp32 file / whole compressed file", "accuracy points lost, at most"
BYTES_HELP = "bytes of the whole file, at most"


def reporter(quiet: bool, verbose: bool, plain: bool) -> RichReporter:
    """Where the words of a command go."""
    from hirelc.progress import LogToReporter, RichReporter, logger

    level = "verbose" if verbose else "quiet" if quiet else "normal"
    say = RichReporter(level, plain=plain)
    if say.moves and not quiet:
        from hirelc.live.view import LiveReporter

        say = LiveReporter(level)
    if verbose:
        logger.setLevel(logging.INFO)
        logger.addHandler(LogToReporter(say))
    return say


def sample_shape(text: str) -> tuple[int, ...]:
    """What `--input-shape` says.

    :raises RunError: it is no shape
    """
    sizes = text.replace("x", ",").replace(" ", "").strip("(),").split(",")
    if not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise RunError(f"--input-shape {text!r}: give whole numbers with commas between them, as in 3,32,32")
    return tuple(map(int, sizes))
