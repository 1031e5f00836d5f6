"""The command that compresses. Arguments in, words out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hirelc.cli_options import (
    BYTES_HELP,
    DATA_HELP,
    DROP_HELP,
    RATIO_HELP,
    Blocks,
    Device,
    ImageSize,
    MaxTokens,
    Model,
    Normalise,
    Out,
    Plain,
    Quiet,
    Seed,
    TaskName,
    Tokenizer,
    Track,
    Verbose,
    Weights,
    reporter,
)
from hirelc.config import PARTS, STRATEGY_NAMES, Config, SearchConfig, TrainConfig
from hirelc.errors import RunError
from hirelc.policy import Goal
from hirelc.timing import TimeBudget, parse_time


def _option(panel: str, text: str) -> Any:
    return typer.Option(help=text, rich_help_panel=panel)


GOAL, DATA, SEARCH, TRAINING = "Goal (all given limits hold together)", "Data", "Search", "Training"

Ratio = Annotated[float | None, _option(GOAL, RATIO_HELP)]
MaxDrop = Annotated[float | None, _option(GOAL, DROP_HELP)]
MaxBytes = Annotated[int | None, _option(GOAL, BYTES_HELP)]
MaxMacs = Annotated[float | None, _option(GOAL, "multiply-accumulates of a sample, at most, as in 10e6")]
MaxLatency = Annotated[float | None, _option(GOAL, "milliseconds of a call on this machine, at most; one thread")]
LatencyBatch = Annotated[int, _option(GOAL, "samples of a call whose latency is limited")]
LatencyTable = Annotated[Path | None, _option(GOAL, "latency.json of another run, to decide by the same times")]

Data = Annotated[str, _option(DATA, DATA_HELP)]
TrainLimit = Annotated[int | None, _option(DATA, "only the first so many samples")]
Augment = Annotated[str, _option(DATA, "auto, none, shift or shift-flip")]

Cycles = Annotated[int | None, _option(SEARCH, "policies measured rigorously (4; 2 with --calibrate-only)")]
Trials = Annotated[int | None, _option(SEARCH, "policies tried in each of them (4; 1)")]
MinKeep = Annotated[float, _option(SEARCH, "channels kept at least, from 0 to 1")]
AgentSteps = Annotated[int | None, _option(SEARCH, "environment steps of each agent and cycle (768; 192)")]
Strategy = Annotated[str, _option(SEARCH, f"hirelc, or a rival of it: {', '.join(STRATEGY_NAMES[1:])}")]
Without = Annotated[str | None, _option(SEARCH, f"hirelc without one of its parts: {', '.join(PARTS)}")]
FrameBits = Annotated[int | None, _option(SEARCH, "bits of the kernels outside any block; without it, finer than the blocks")]
Importance = Annotated[str, _option(SEARCH, "which channels stay: by fisher or magnitude")]
Align = Annotated[int, _option(SEARCH, "keep channels in multiples of this: odd counts run slower")]

Activations = Annotated[str, _option(TRAINING, "float, or int8 for export to integer runtimes")]
CalibrateOnly = Annotated[bool, typer.Option("--calibrate-only", help="no training at all: minutes", rich_help_panel=TRAINING)]
IMAGES_HELP = f"training samples that search and final fine-tune may see together ({TrainConfig.images:,})"
Images = Annotated[int | None, _option(TRAINING, IMAGES_HELP)]
Time = Annotated[str | None, _option(TRAINING, "in place of --images: wall time, as in 20m, 90s or 1h30m")]
BatchSize = Annotated[int, _option(TRAINING, "samples in a batch")]
LearningRate = Annotated[float | None, _option(TRAINING, "peak of the schedule; chosen by the network when not given")]
Precision = Annotated[str, _option(TRAINING, "auto, bf16 or fp32")]
Control = Annotated[
    bool, typer.Option("--control/--no-control", help="train the uncompressed original alike", rich_help_panel=TRAINING)
]


def compress(
    model: Model,
    data: Data,
    out: Out,
    weights: Weights = None,
    task: TaskName = None,
    image_size: ImageSize = None,
    normalise: Normalise = None,
    tokenizer: Tokenizer = None,
    max_tokens: MaxTokens = None,
    ratio: Ratio = None,
    max_drop: MaxDrop = None,
    max_bytes: MaxBytes = None,
    max_macs: MaxMacs = None,
    max_latency_ms: MaxLatency = None,
    latency_batch: LatencyBatch = Config.latency_batch,
    latency_table: LatencyTable = None,
    train_limit: TrainLimit = None,
    augment: Augment = "auto",
    cycles: Cycles = None,
    trials: Trials = None,
    min_keep: MinKeep = SearchConfig.min_keep,
    agent_steps: AgentSteps = None,
    strategy: Strategy = SearchConfig.strategy,
    without: Without = None,
    blocks: Blocks = None,
    frame_bits: FrameBits = Config.frame_bits,
    importance: Importance = Config.importance,
    align: Align = Config.align,
    activations: Activations = Config.activations,
    calibrate_only: CalibrateOnly = False,
    images: Images = None,
    time: Time = None,
    batch_size: BatchSize = TrainConfig.batch_size,
    learning_rate: LearningRate = None,
    precision: Precision = TrainConfig.precision,
    control: Control = True,
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
    search = _search(calibrate_only, cycles, trials, agent_steps, min_keep=min_keep, strategy=strategy, without=without)
    train = TrainConfig(
        images=TrainConfig.images if images is None else images,
        seconds=None if budget is None else budget.seconds,
        batch_size=batch_size,
        learning_rate=learning_rate,
        precision=precision,
        control=control,
    )
    config = Config(
        seed=seed,
        blocks=blocks,
        frame_bits=frame_bits,
        importance=importance,
        align=align,
        activations=activations,
        calibrate_only=calibrate_only,
        latency_batch=latency_batch,
        latency_table=None if latency_table is None else str(latency_table),
        device=device,
        search=search,
        train=train,
    )

    from hirelc.inputs import DataOptions, evaluate_command, inputs_json, read_again
    from hirelc.pipeline import compress as run
    from hirelc.words import result_words

    say = reporter(quiet, verbose, plain)
    options = DataOptions(image_size, normalise, tokenizer, max_tokens)
    request = {"batch_size": batch_size, "train_limit": train_limit, "augment": None if augment == "none" else augment}
    kept = inputs_json(model, weights, data, task, options, **request, seed=seed)
    network, judged, splits = read_again(kept)
    if weights is None and not model.startswith("hf:"):
        say.line("no --weights: the network is compressed as its factory returns it")
    say.line(f"data: {splits.description}")
    for note in splits.notes:
        say.warn(note)
    given: dict[str, Any] = {"test": splits.test, "config": config, "task": judged, "reporter": say, "time": budget}
    result = run(network, splits.train, splits.validation, goal, out, **given, inputs=kept, track=track or ())
    typer.echo(result_words(result, evaluate_command(result.path, kept)))


def _search(
    calibrate_only: bool, cycles: int | None, trials: int | None, agent_steps: int | None, **settings: Any
) -> SearchConfig:
    """What was given, and the rest as it is with or without training."""
    usual = SearchConfig.short() if calibrate_only else SearchConfig()
    steps = usual.low_level_steps if agent_steps is None else agent_steps
    given = usual.cycles if cycles is None else cycles, usual.trials if trials is None else trials
    return SearchConfig(*given, steps, steps, **settings)
