"""The command line: arguments in, words and bars out. Tables go to standard output, all else to standard error."""

from __future__ import annotations

import json
import logging
import shlex
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hirelc import cli_ablate, cli_deploy, cli_front, cli_report, cli_resume
from hirelc.cli_context import FOLDER, VERBOSE
from hirelc.config import PARTS, STRATEGY_NAMES, Config, SearchConfig, TrainConfig
from hirelc.errors import HirelcError, RunError
from hirelc.policy import Goal
from hirelc.timing import TimeBudget, parse_time
from hirelc.version import __version__

# torch is imported inside the commands, so that `hirelc --help` answers at once
if TYPE_CHECKING:
    from hirelc.inputs import DataOptions
    from hirelc.network.example import Example
    from hirelc.progress import RichReporter

BAD_INPUT, INTERRUPTED = 2, 130


class _Commands(TyperGroup):
    """Turns errors and Ctrl-C into one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HirelcError as error:
            if ctx.meta.get(VERBOSE):
                typer.echo(traceback.format_exc(), err=True)
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            typer.echo("interrupted" + _kept(ctx.meta.get(FOLDER)), err=True)
            raise typer.Exit(INTERRUPTED) from None


def _kept(folder: Path | None) -> str:
    if folder is None:
        return ""
    from hirelc.words import kept_words

    return f": {kept_words(folder)}"


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def main() -> None:
    """The entry point `hirelc`."""
    app(prog_name="hirelc")


def _remember_verbose(ctx: typer.Context, value: bool) -> bool:
    ctx.meta[VERBOSE] = value
    return value


def _remember_folder(ctx: typer.Context, value: Path) -> Path:
    ctx.meta[FOLDER] = value
    return value


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"hirelc {__version__}")
        raise typer.Exit


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
Seed = Annotated[int, typer.Option(help="root of all randomness, data splits included")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Blocks = Annotated[str | None, typer.Option(help="regular expression for the module paths of the blocks; else by repetition")]
Json = Annotated[bool, typer.Option("--json", help="for programs instead of people")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="only the result and warnings")]
TRACK_HELP = "mlflow (a store in the run's folder) or mlflow:URI; TensorBoard, where installed, without asking; or none"
Track = Annotated[list[str] | None, typer.Option("--track", help=TRACK_HELP)]
Plain = Annotated[bool, typer.Option("--plain", help="one line per event, as where no terminal is: for logs")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="more lines; tracebacks", callback=_remember_verbose)]
BatchSize = Annotated[int, typer.Option(help="samples in a batch")]
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
GOAL, DATA, SEARCH, TRAINING = "Goal (all given limits hold together)", "Data", "Search", "Training"


@app.callback()
def hirelc(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="the version")] = False,
) -> None:
    """Makes trained PyTorch networks small: structured pruning and mixed precision, searched by hierarchical RL.

    \b
    hirelc demo                                   see it work
    hirelc inspect --model mypkg.nets:make_net    see how your network is made
    hirelc compress --help                        make it small
    """


@app.command()
def compress(
    model: Model,
    data: Annotated[str, typer.Option(help=DATA_HELP, rich_help_panel=DATA)],
    out: Out,
    weights: Weights = None,
    task: TaskName = None,
    image_size: ImageSize = None,
    normalise: Normalise = None,
    tokenizer: Tokenizer = None,
    max_tokens: MaxTokens = None,
    ratio: Annotated[float | None, typer.Option(help="whole fp32 file / whole compressed file", rich_help_panel=GOAL)] = None,
    max_drop: Annotated[float | None, typer.Option(help="accuracy points lost, at most", rich_help_panel=GOAL)] = None,
    max_bytes: Annotated[int | None, typer.Option(help="bytes of the whole file, at most", rich_help_panel=GOAL)] = None,
    max_macs: Annotated[
        float | None, typer.Option(help="multiply-accumulates of a sample, at most, as in 10e6", rich_help_panel=GOAL)
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="milliseconds of a call on this machine, at most; one thread", rich_help_panel=GOAL)
    ] = None,
    latency_batch: Annotated[
        int, typer.Option(help="samples of a call whose latency is limited", rich_help_panel=GOAL)
    ] = Config.latency_batch,
    latency_table: Annotated[
        Path | None, typer.Option(help="latency.json of another run, to decide by the same times", rich_help_panel=GOAL)
    ] = None,
    train_limit: Annotated[int | None, typer.Option(help="only the first so many samples", rich_help_panel=DATA)] = None,
    augment: Annotated[str, typer.Option(help="auto, none, shift or shift-flip", rich_help_panel=DATA)] = "auto",
    cycles: Annotated[
        int | None, typer.Option(help="policies measured rigorously (4; 2 with --calibrate-only)", rich_help_panel=SEARCH)
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="policies tried in short for each of them (4; 1)", rich_help_panel=SEARCH)
    ] = None,
    min_keep: Annotated[
        float, typer.Option(help="channels kept at least, from 0 to 1", rich_help_panel=SEARCH)
    ] = SearchConfig.min_keep,
    agent_steps: Annotated[
        int | None, typer.Option(help="environment steps of each agent and cycle (768; 192)", rich_help_panel=SEARCH)
    ] = None,
    strategy: Annotated[
        str, typer.Option(help=f"hirelc, or a rival of it: {', '.join(STRATEGY_NAMES[1:])}", rich_help_panel=SEARCH)
    ] = SearchConfig.strategy,
    without: Annotated[
        str | None, typer.Option(help=f"hirelc without one of its parts: {', '.join(PARTS)}", rich_help_panel=SEARCH)
    ] = None,
    blocks: Blocks = None,
    frame_bits: Annotated[
        int | None,
        typer.Option(help="bits of the kernels outside any block; without it, finer than the blocks", rich_help_panel=SEARCH),
    ] = Config.frame_bits,
    importance: Annotated[
        str, typer.Option(help="which channels stay: by fisher or magnitude", rich_help_panel=SEARCH)
    ] = Config.importance,
    align: Annotated[
        int, typer.Option(help="keep channels in multiples of this: odd counts run slower", rich_help_panel=SEARCH)
    ] = Config.align,
    activations: Annotated[
        str, typer.Option(help="float, or int8 for export to integer runtimes", rich_help_panel=TRAINING)
    ] = Config.activations,
    calibrate_only: Annotated[
        bool, typer.Option("--calibrate-only", help="no training at all: minutes", rich_help_panel=TRAINING)
    ] = False,
    images: Annotated[
        int | None,
        typer.Option(
            help=f"training samples that search and final fine-tune may see together ({TrainConfig.images:,})",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="in place of --images: wall time, as in 20m, 90s or 1h30m", rich_help_panel=TRAINING),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="samples in a batch", rich_help_panel=TRAINING)] = TrainConfig.batch_size,
    learning_rate: Annotated[
        float | None, typer.Option(help="peak of the schedule; chosen by the network when not given", rich_help_panel=TRAINING)
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32", rich_help_panel=TRAINING)] = TrainConfig.precision,
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="train the uncompressed original alike", rich_help_panel=TRAINING)
    ] = True,
    seed: Seed = 0,
    device: Device = "cpu",
    quiet: Quiet = False,
    plain: Plain = False,
    track: Track = None,
    verbose: Verbose = False,
) -> None:
    """Compresses a network to a goal; the file is OUT/model.hirelc.

    \b
    hirelc compress --model mypkg.nets:make_net --weights net.safetensors \\
                    --data images.npz --ratio 16 --max-drop 0.5 --out runs/mine
    hirelc compress ... --max-bytes 60000 --max-macs 10e6 --images 1000000 --cycles 6
    hirelc compress ... --ratio 20 --time 20m

    When the goal cannot be met, the closest policy found is delivered, marked as short of the goal.
    """
    goal = Goal(ratio, max_drop, max_bytes, max_macs, max_latency_ms)
    if images is not None and time is not None:
        raise RunError("--images and --time exclude each other: with a time, the images follow from how fast this machine is")
    budget = None if time is None else TimeBudget(parse_time(time))
    images = TrainConfig.images if images is None else images
    search = SearchConfig.short() if calibrate_only else SearchConfig()
    cycles, steps = search.cycles if cycles is None else cycles, search.low_level_steps if agent_steps is None else agent_steps
    trials = search.trials if trials is None else trials
    search = SearchConfig(cycles, trials, steps, steps, min_keep=min_keep, strategy=strategy, without=without)
    train = TrainConfig(images=images, batch_size=batch_size, learning_rate=learning_rate, precision=precision, control=control)
    config = Config(seed, blocks, frame_bits, importance, align=align, device=device, search=search, train=train)
    table = None if latency_table is None else str(latency_table)
    train = replace(train, seconds=None if budget is None else budget.seconds)
    config = replace(config, activations=activations, calibrate_only=calibrate_only, train=train)
    config = replace(config, latency_batch=latency_batch, latency_table=table)

    from hirelc.inputs import DataOptions, inputs_json, read_again
    from hirelc.pipeline import compress as run
    from hirelc.words import result_words

    say = _reporter(quiet, verbose, plain)
    options = DataOptions(image_size, normalise, tokenizer, max_tokens)
    request = {"batch_size": batch_size, "train_limit": train_limit, "augment": None if augment == "none" else augment}
    kept = inputs_json(model, weights, data, task, options, **request, seed=seed)
    network, judged, splits = read_again(kept)
    if weights is None and not model.startswith("hf:"):
        say.line("no --weights: the network is compressed as its factory returns it")
    say.line(f"data: {splits.description}")
    for note in splits.notes:
        say.warn(note)
    given: dict[str, Any] = {
        "test": splits.test,
        "config": config,
        "task": judged,
        "reporter": say,
        "time": budget,
        "inputs": kept,
        "track": track or (),
    }
    result = run(network, splits.train, splits.validation, goal, out, **given)
    flags = ([] if task is None else ["--task", task]) + options.flags()
    typer.echo(result_words(result, _evaluate_command(result.path, model, data, weights, seed, flags)))


@app.command()
def inspect(
    model: Model,
    weights: Weights = None,
    data: Annotated[str | None, typer.Option(help=f"where an example input comes from: {DATA_HELP}")] = None,
    input_shape: Annotated[str | None, typer.Option(help="shape of one sample, as in 3,32,32")] = None,
    blocks: Blocks = None,
    task: TaskName = None,
    image_size: ImageSize = None,
    tokenizer: Tokenizer = None,
    seed: Seed = 0,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Shows blocks, kernels, coupled dimensions, and what will not be touched and why. Nothing is written.

    \b
    hirelc inspect --model mypkg.nets:make_net
    hirelc inspect --model torchvision.models:resnet18 --input-shape 3,224,224
    hirelc inspect --model mypkg.nets:make_net --blocks 'encoder\\.layer\\.[0-9]+'

    The network runs once on an example input: from --data, of --input-shape, or guessed (and said so).
    """
    from hirelc.inputs import DataOptions
    from hirelc.models import load_network
    from hirelc.network.trace import trace
    from hirelc.words import network_json, network_words

    network = load_network(model, weights, seed, task)
    if input_shape is None and data is not None:
        example = _samples(model, data, DataOptions(image_size, tokenizer=tokenizer), seed)
    else:
        example = _example(network, input_shape)
    spec = trace(network, example.inputs, blocks)
    if as_json:
        typer.echo(json.dumps(network_json(spec, model, example.origin), indent=2))
    else:
        typer.echo(network_words(spec, model, example.origin))


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="a .hirelc file")],
    model: Model,
    data: Data,
    weights: Annotated[Path | None, typer.Option(help="also evaluate the original, with these weights")] = None,
    split: Annotated[str, typer.Option(help="test or validation")] = "test",
    task: TaskName = None,
    image_size: ImageSize = None,
    normalise: Normalise = None,
    tokenizer: Tokenizer = None,
    max_tokens: MaxTokens = None,
    batch_size: BatchSize = 256,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Reads a compressed network back from its file and measures it.

    \b
    hirelc evaluate runs/mine/model.hirelc --model mypkg.nets:make_net --data images.npz
    """
    from hirelc.evaluation import evaluate_file
    from hirelc.inputs import DataOptions, read_inputs, task_name
    from hirelc.words import evaluation_words

    options = DataOptions(image_size, normalise, tokenizer, max_tokens)
    judged, splits = read_inputs(model, data, task, options, batch_size=batch_size, seed=seed)
    name = task_name(model, task)
    found = evaluate_file(file, model, splits, split, weights=weights, seed=seed, device=device, task=judged, task_name=name)
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else evaluation_words(found))


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="a .hirelc file")],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Shows what a file holds, kernel by kernel. Needs no network.

    \b
    hirelc show runs/mine/model.hirelc
    """
    from hirelc.artifact.inspect import open_file
    from hirelc.words import file_json, file_words

    view = open_file(file)
    typer.echo(json.dumps(file_json(view), indent=2) if as_json else file_words(view))


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    data: Annotated[str | None, typer.Option(help=f"Fashion-MNIST if installed, else a bundled part; or {DATA_HELP}")] = None,
    ratio: Annotated[float, typer.Option(help="whole fp32 file / whole compressed file")] = 12.0,
    minutes: Annotated[float, typer.Option(help="about how long it may take on two cores")] = 12.0,
    only: Annotated[list[str] | None, typer.Option(help="residual-net or vision-transformer; else both")] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    plain: Plain = False,
    verbose: Verbose = False,
) -> None:
    """Trains two small networks on images of clothes, and compresses them. Needs no download.

    \b
    hirelc demo
    hirelc demo --only residual-net --ratio 20 --out runs/demo20
    hirelc demo --data fashion-mnist:DIR       with the four idx files of Fashion-MNIST in DIR
    """
    from hirelc.demo import DEMO_NETWORKS, DemoBudget, run_demo
    from hirelc.words import result_words

    say = _reporter(quiet, verbose, plain)
    runs = run_demo(
        out,
        data=data,
        goal=Goal(ratio=ratio),
        budget=DemoBudget.for_minutes(minutes),
        names=only or DEMO_NETWORKS,
        seed=seed,
        reporter=say,
    )
    for run in runs:
        following = _evaluate_command(run.result.path, run.model, run.data, run.weights, seed)
        typer.echo(f"\n{run.name} (original in {run.weights})\n\n{result_words(run.result, following)}")


cli_report.register(app)
cli_deploy.register(app)
cli_ablate.register(app)
cli_resume.register(app, lambda quiet, verbose, plain: _reporter(quiet, verbose, plain))
cli_front.register(app, lambda quiet, verbose, plain: _reporter(quiet, verbose, plain))


def _reporter(quiet: bool, verbose: bool, plain: bool) -> RichReporter:
    from hirelc.progress import LogToReporter, RichReporter, logger

    level = "verbose" if verbose else "quiet" if quiet else "normal"
    reporter = RichReporter(level, plain=plain)
    if reporter.moves and not quiet:
        from hirelc.live.view import LiveReporter

        reporter = LiveReporter(level)
    if verbose:
        logger.setLevel(logging.INFO)
        logger.addHandler(LogToReporter(reporter))
    return reporter


def _example(network: Any, input_shape: str | None) -> Example:
    from hirelc.network.example import example_of_shape, guess_example

    return guess_example(network) if input_shape is None else example_of_shape(network, _shape(input_shape))


def _samples(model: str, data: str, options: DataOptions, seed: int) -> Example:
    from hirelc.data import first_samples
    from hirelc.inputs import read_inputs
    from hirelc.network.example import Example

    _, splits = read_inputs(model, data, None, options, labelled=False, seed=seed)
    return Example(first_samples(splits.train, 2)[0], f"two samples of {data}")


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.replace("x", ",").replace(" ", "").strip("(),").split(",")
    if not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise RunError(f"--input-shape {text!r}: give whole numbers with commas between them, as in 3,32,32")
    return tuple(map(int, sizes))


def _evaluate_command(path: Path, model: str, data: str, weights: Path | None, seed: int, flags: Sequence[str] = ()) -> str:
    parts = ["hirelc", "evaluate", str(path), "--model", model, "--data", data]
    parts += [] if weights is None else ["--weights", str(weights)]
    return shlex.join([*parts, *flags, *([] if seed == 0 else ["--seed", str(seed)])])
