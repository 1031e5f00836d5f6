"""The command line: arguments in, words and bars out. Tables go to standard output, all else to standard error."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hirelc import cli_ablate, cli_compress, cli_deploy, cli_front, cli_report, cli_resume
from hirelc.cli_context import FOLDER, VERBOSE
from hirelc.cli_options import (
    DATA_HELP,
    RATIO_HELP,
    Blocks,
    Data,
    Device,
    ImageSize,
    Json,
    MaxTokens,
    Model,
    Normalise,
    Out,
    Plain,
    Quiet,
    Seed,
    TaskName,
    Tokenizer,
    Verbose,
    Weights,
    reporter,
    sample_shape,
)
from hirelc.errors import HirelcError
from hirelc.policy import Goal
from hirelc.version import __version__

# torch is imported inside the commands, so that `hirelc --help` answers at once
if TYPE_CHECKING:
    from hirelc.inputs import DataOptions
    from hirelc.network.example import Example

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


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"hirelc {__version__}")
        raise typer.Exit


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


app.command()(cli_compress.compress)


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
    batch_size: Annotated[int, typer.Option(help="samples in a batch")] = 256,
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
    ratio: Annotated[float, typer.Option(help=RATIO_HELP)] = 12.0,
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
    from hirelc.inputs import DataOptions, evaluate_command, inputs_json
    from hirelc.words import result_words

    say = reporter(quiet, verbose, plain)
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
        kept = inputs_json(run.model, run.weights, run.data, None, DataOptions(), seed=seed)
        following = evaluate_command(run.result.path, kept)
        typer.echo(f"\n{run.name} (original in {run.weights})\n\n{result_words(run.result, following)}")


for commands in (cli_report, cli_deploy, cli_ablate, cli_resume, cli_front):
    commands.register(app)


def _example(network: Any, input_shape: str | None) -> Example:
    from hirelc.network.example import example_of_shape, guess_example

    return guess_example(network) if input_shape is None else example_of_shape(network, sample_shape(input_shape))


def _samples(model: str, data: str, options: DataOptions, seed: int) -> Example:
    from hirelc.data import first_samples
    from hirelc.inputs import read_inputs
    from hirelc.network.example import Example

    _, splits = read_inputs(model, data, None, options, labelled=False, seed=seed)
    return Example(first_samples(splits.train, 2)[0], f"two samples of {data}")
