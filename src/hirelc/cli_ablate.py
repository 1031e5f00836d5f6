"""The command that compares search strategies on equal terms. Arguments in, words out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hirelc.cli_options import Json, Quiet
from hirelc.config import PARTS, STRATEGY_NAMES, Config, SearchConfig, TrainConfig
from hirelc.errors import RunError
from hirelc.policy import Goal

if TYPE_CHECKING:
    from hirelc.ablation import Outcome, Plan
    from hirelc.data import Splits
    from hirelc.progress import Reporter
    from hirelc.task import Task

INTERRUPTED = 130
BENCH_DATA = "fashion-mnist"
BENCHES = (Path("bench"), Path("../shared/bench"))  # where the folder of a benchmark is looked for
BENCH_RATIO = 30.0
GOAL, DATA, RUNS = "Goal", "Network and data", "Runs"
VARIANTS_HELP = (
    f"some of {', '.join(STRATEGY_NAMES)}, and of without-PART, where PART is one of {', '.join(PARTS)}; commas between "
    "them. All of them when not given"
)


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(ablate)


def ablate(
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder of the comparison; the same command goes on where it stopped. If not given, with --network: "
            "runs/ablate-NETWORK-GOAL"
        ),
    ] = None,
    network: Annotated[str | None, typer.Option(help="of the folder --bench, as in resnet20", rich_help_panel=DATA)] = None,
    bench: Annotated[
        Path | None,
        typer.Option(
            help=f"folder with networks.py and NAME.safetensors; {' or '.join(map(str, BENCHES))} if not given",
            rich_help_panel=DATA,
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="your own network instead, as for compress", rich_help_panel=DATA)] = None,
    weights: Annotated[Path | None, typer.Option(help="as for compress", rich_help_panel=DATA)] = None,
    data: Annotated[
        str | None, typer.Option(help=f"as for compress; with --network {BENCH_DATA} if not given", rich_help_panel=DATA)
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="as for compress", rich_help_panel=DATA)] = None,
    train_limit: Annotated[int | None, typer.Option(help="only the first so many samples", rich_help_panel=DATA)] = None,
    image_size: Annotated[str | None, typer.Option(help="of image files, as for compress", rich_help_panel=DATA)] = None,
    normalise: Annotated[str | None, typer.Option(help="of image files, as for compress", rich_help_panel=DATA)] = None,
    tokenizer: Annotated[str | None, typer.Option(help="as for compress", rich_help_panel=DATA)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="longer texts are cut", rich_help_panel=DATA)] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            help=f"whole fp32 file / whole compressed file; with --network {BENCH_RATIO:g} if no goal is given",
            rich_help_panel=GOAL,
        ),
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="bytes of the whole file, at most", rich_help_panel=GOAL)] = None,
    variants: Annotated[str | None, typer.Option(help=VARIANTS_HELP, rich_help_panel=RUNS)] = None,
    seeds: Annotated[int, typer.Option(help="runs of each variant, each with a seed of its own", rich_help_panel=RUNS)] = 3,
    seed: Annotated[int, typer.Option(help="the first of them", rich_help_panel=RUNS)] = 0,
    images: Annotated[
        int, typer.Option(help="training samples that one run may see", rich_help_panel=RUNS)
    ] = TrainConfig.images,
    cycles: Annotated[
        int, typer.Option(help="policies measured in full, less one", rich_help_panel=RUNS)
    ] = SearchConfig.cycles,
    agent_steps: Annotated[
        int, typer.Option(help="environment steps of each agent and cycle", rich_help_panel=RUNS)
    ] = SearchConfig.low_level_steps,
    min_keep: Annotated[
        float, typer.Option(help="channels kept at least, from 0 to 1", rich_help_panel=RUNS)
    ] = SearchConfig.min_keep,
    batch_size: Annotated[int, typer.Option(help="samples in a batch", rich_help_panel=RUNS)] = TrainConfig.batch_size,
    final: Annotated[
        bool, typer.Option("--final/--no-final", help="end each run with the long fine-tune", rich_help_panel=RUNS)
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda", rich_help_panel=RUNS)] = "cpu",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compares all search strategies, and the method without each of its parts, on equal terms.

    \b
    hirelc ablate --model mypkg.nets:make_net --weights net.safetensors --data images.npz --ratio 20 --out runs/compared
    hirelc ablate --network resnet20 --seeds 3
    hirelc ablate --network vit --bench bench --ratio 20 --variants hirelc,uniform,knapsack --out runs/vit

    Every run has the same goal, samples and full measurements. The table is in OUT/ablation.md, all numbers in
    OUT/ablation.json, plots in OUT/figures (with the extra hirelc\\[report]).
    """
    from hirelc.ablation import ALL, Plan, Variant, outcomes
    from hirelc.ablation import ablate as run
    from hirelc.inputs import DataOptions
    from hirelc.progress import RichReporter

    if (network is None) == (model is None):
        raise RunError("give either --network with --bench, for a network of a benchmark, or --model, for your own")
    if network is not None:
        bench = bench or _found_bench(network)
        ratio = BENCH_RATIO if ratio is None and max_bytes is None else ratio
        out = out or Path("runs") / f"ablate-{network}-{f'{max_bytes}-bytes' if ratio is None else f'{ratio:g}x'}"
    if ratio is None and max_bytes is None:
        raise RunError("the runs are compared at equal bytes: give --ratio or --max-bytes")
    if out is None:
        raise RunError("--out is missing: name a folder for the comparison")
    source = data or (BENCH_DATA if network is not None else None)
    if source is None:
        raise RunError("--data is missing: name the data that the network was trained on")
    names = ALL if variants is None else tuple(name.strip() for name in variants.split(",") if name.strip())
    search = replace(
        SearchConfig(), cycles=cycles, low_level_steps=agent_steps, high_level_steps=agent_steps, min_keep=min_keep
    )
    train = TrainConfig(images=images, batch_size=batch_size, control=False, final=final)
    plan = Plan(
        network or str(model),
        source if train_limit is None else f"{source}, the first {train_limit:,} training samples",
        Goal(ratio, None, max_bytes),
        Config(device=device, search=search, train=train),
        tuple(dict.fromkeys(Variant.called(name) for name in names)),
        tuple(range(seed, seed + seeds)),
    )
    say: Reporter = RichReporter("quiet" if quiet else "normal")
    options = DataOptions(image_size, normalise, tokenizer, max_tokens)
    make = _maker(network, bench, model, weights, task)
    judged, load = _loader(model, source, task, options, batch_size, train_limit)
    try:
        found = run(make, load, judged, plan, out, say)
    except KeyboardInterrupt:
        found = outcomes(plan, out)
        _tell(plan, found, out, say, as_json)
        typer.echo(f"interrupted: {len(found)} runs are finished; the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _tell(plan, found, out, say, as_json)


def _found_bench(network: str) -> Path:
    """
    :raises RunError: there is none where it is looked for
    """
    for folder in BENCHES:
        if (folder / "networks.py").is_file():
            return folder
    places = " or ".join(map(str, BENCHES))
    raise RunError(f"--network {network} needs --bench, the folder with networks.py and the weights: it is not {places}")


def _maker(
    network: str | None, bench: Path | None, model: str | None, weights: Path | None, task: str | None
) -> Callable[[int], Any]:
    from hirelc.common_benchmark import benchmark_network
    from hirelc.inputs import task_name
    from hirelc.models import load_network

    if network is not None and bench is not None:
        benchmark_network(bench, network)  # what is wrong with it is said before anything is written
        return lambda seed: benchmark_network(bench, network)
    return lambda seed: load_network(str(model), weights, seed, task_name(str(model), task))


def _loader(
    model: str | None, source: str, task: str | None, options: Any, batch_size: int, train_limit: int | None
) -> tuple[Task, Callable[[int], Splits]]:
    from hirelc.inputs import read_inputs, task_name
    from hirelc.models import find_task

    name = model or "benchmark"

    def load(seed: int) -> Splits:
        return read_inputs(name, source, task, options, batch_size=batch_size, train_limit=train_limit, seed=seed)[1]

    return find_task(task_name(name, task)), load


def _tell(plan: Plan, found: tuple[Outcome, ...], out: Path, say: Reporter, as_json: bool) -> None:
    """Writes the table and the plots, and says the table."""
    from hirelc.ablation import RESULTS
    from hirelc.report.charts.ablation import ablation_charts
    from hirelc.report.figures import draw
    from hirelc.store import atomic_write
    from hirelc.words_ablation import ablation_markdown, ablation_words, chart_rows

    if not found:
        return
    atomic_write(out / "ablation.md", ablation_markdown(plan, found).encode())
    try:
        draw(ablation_charts(*chart_rows(found)), out / "figures")
    except RunError as error:
        say.warn(f"no plots: {error}")
    if as_json:
        typer.echo(json.dumps(json.loads((out / RESULTS).read_text()), indent=2))
        return
    typer.echo(ablation_words(plan, found))
    typer.echo(f"\ntable   {out / 'ablation.md'}\nnumbers {out / RESULTS}\nplots   {out / 'figures'}")
