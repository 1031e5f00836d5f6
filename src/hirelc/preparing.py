"""What is known before the search: the network in words, baseline, sensitivity, proxy, sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from hirelc import cost
from hirelc.artifact.container import pack
from hirelc.batches import Batches, batch_length, first_samples
from hirelc.checkpoints import CHECKPOINTS, load_tensors
from hirelc.compression.apply import apply
from hirelc.compression.reconstruct import Reconstruction
from hirelc.config import Config
from hirelc.errors import DataError
from hirelc.landscape import Landscape
from hirelc.latencies import make_table
from hirelc.measure.evaluate import accuracy
from hirelc.measure.finetune import Trainer
from hirelc.measure.proxy import LogitProxy
from hirelc.measure.sensitivity import Sensitivity, fisher_sensitivity
from hirelc.network.calling import head, to_device
from hirelc.network.spec import Pruning
from hirelc.policy import Choice, Granularity, Policy
from hirelc.precision import RUNGS, with_precision
from hirelc.run import Run
from hirelc.search.bounds import Bounds, alike
from hirelc.search.budgets import default_bytes
from hirelc.seeds import stream_seed
from hirelc.tensorfile import pack_tensors, unpack_tensors

FINER = 1.5  # bits per weight that the frame's kernels get beyond what the goal leaves on average
SENSITIVITY = f"{CHECKPOINTS}/sensitivity.safetensors"
LEAST_SAMPLES = 64  # with fewer, least squares fit the samples and not the network


def fisher_samples(config: Config, train: Batches) -> int:
    return min(config.fisher_samples, train.samples)


def check_enough(config: Config, train: Batches) -> None:
    """
    :raises DataError: too few samples to reconstruct from
    """
    if train.samples < LEAST_SAMPLES:
        raise DataError(
            f"compression without training needs {LEAST_SAMPLES} samples to calibrate on, "
            f"better {config.reconstruction_samples}, and the fine-tuning split has {train.samples}: give more"
        )


def describe(run: Run) -> None:
    spec = run.spec
    for note in spec.notes:
        run.say.detail(note)
    run.directory.journal_once(
        "network",
        blocks=[{"name": b.name, "kernels": b.kernels} for b in spec.blocks],
        frame=[k.name for k in spec.frame],
        untouched=[{"name": u.name, "shape": u.shape, "reason": u.reason} for u in spec.untouched],
        original_bytes=spec.original_bytes,
        macs=cost.macs(spec),
        notes=spec.notes,
    )
    coupled = sum(k.pruning is Pruning.COUPLED for k in spec.kernels)
    run.say.line(
        f"network: {spec.parameters:,} parameters, {len(spec.kernels)} kernels in {len(spec.blocks)} blocks and a frame "
        f"of {len(spec.frame)}; {coupled} kernels lose channels on both sides; fp32 file {spec.original_bytes:,} bytes"
    )


def measure_baseline(run: Run) -> float:
    recorded = run.directory.event("baseline")
    if recorded is not None:
        baseline = float(recorded["accuracy"])
    else:
        with run.say.stage("measuring the original"):
            baseline = accuracy(run.model, run.validation, run.task, device=run.config.device)
        run.directory.journal("baseline", accuracy=baseline, split="search-validation", samples=run.validation.samples)
    run.say.line(f"original: {baseline:.2f} {run.task.unit} {run.task.name} on the search-validation split")
    return baseline


def measure_sensitivity(run: Run) -> Sensitivity:
    kept = load_tensors(run.directory, SENSITIVITY, run.say, "the sensitivity is measured again")
    if kept is None:
        data = _measured_sensitivity(run)
        run.directory.write_bytes(SENSITIVITY, data)
        kept = unpack_tensors(data, SENSITIVITY)  # as a resumed run reads it, to the layout of the tensors
    fisher, record = kept
    found = Sensitivity(fisher={name: fisher[name] for name in record["kernels"]}, **record)
    blocks = {b.name: value for b, value in zip(run.spec.blocks, found.blocks, strict=True)}
    run.directory.journal_once("sensitivity", samples=found.samples, kernels=found.kernels, blocks=blocks)
    return found


def _measured_sensitivity(run: Run) -> bytes:
    samples = fisher_samples(run.config, run.train)
    with run.say.stage("Fisher sensitivity", samples) as stage:
        found = fisher_sensitivity(
            run.model,
            run.spec,
            run.train,
            run.task,
            samples,
            seed=stream_seed(run.config.seed, "fisher"),
            device=run.config.device,
            progress=lambda _done: stage.advance(),
        )
    return pack_tensors(found.fisher, {"kernels": found.kernels, "blocks": found.blocks, "samples": found.samples})


def importance_of(run: Run, sensitivity: Sensitivity) -> dict[str, Tensor]:
    weights = dict(run.model.named_parameters())
    squared = {k.name: weights[k.name].detach().float().square() for k in run.spec.kernels}
    if run.config.importance == "magnitude":
        return squared
    # a floor, so that rows whose gradients vanish on a few hundred samples still rank by magnitude
    return {n: w * (sensitivity.fisher[n] + 1e-3 * sensitivity.fisher[n].mean()) for n, w in squared.items()}


def make_landscape(run: Run, sensitivity: Sensitivity, importance: dict[str, Tensor]) -> Landscape:
    kernels = sum(k.block is not None for k in run.spec.kernels)
    with run.say.stage("logit proxy", kernels) as stage:
        proxy = LogitProxy(
            run.model,
            run.spec,
            calibration_inputs(run),
            importance,
            sensitivity.fisher,
            progress=lambda: stage.advance(),
            task=run.task,
        )
    run.directory.journal_once("proxy", forward_passes=proxy.forward_passes, samples=run.config.calibration_samples)
    limits = replace(run.goal.limits(run.spec.original_bytes), size_bytes=None)
    landscape = Landscape(_sizes(run, proxy, importance), sensitivity, proxy, _frame(run, proxy), limits, make_table(run))
    _say_of_limits(run, landscape)
    return landscape


def _say_of_limits(run: Run, landscape: Landscape) -> None:
    """What the goal leaves to a default, and what it asks for that no choice can meet."""
    if run.goal.leaves_open:
        aim = default_bytes(run.spec.original_bytes)
        run.say.line(f"the goal limits neither bytes nor drop: the file is led to an eighth of the original's, {aim:,} bytes")
    bounds = Bounds.of(run.config.search)
    least = [landscape.canonical(b, alike(block, bounds.lowest, bounds.min_keep)) for b, block in enumerate(landscape.blocks)]
    exceeded = landscape.limits.excess(0, landscape.macs(least), landscape.latency_ms(least))
    for name in exceeded:
        left = f"{landscape.macs(least):,} MACs" if name == "macs" else f"{landscape.latency_ms(least) or 0:.3g} ms"
        run.say.warn(
            f"the goal is out of reach: with --min-keep {bounds.min_keep:g} of the channels everywhere {left} are left, "
            f"{1 + exceeded[name]:.2f} times what is allowed; the closest will be delivered (a lower --min-keep may help)"
        )


def _frame(run: Run, proxy: LogitProxy) -> dict[str, Choice]:
    """The frame is few bytes and touches everything: a learned step per channel, all channels, and finer than the blocks."""
    plain = Choice(granularity=Granularity.LEARNED)
    if run.config.frame_bits is not None:
        return {k.name: replace(plain, bits=run.config.frame_bits) for k in run.spec.frame}
    limit = run.goal.byte_limit(run.spec.original_bytes) or default_bytes(run.spec.original_bytes)
    wanted = 8 * limit / run.spec.parameters + FINER
    frame = {}
    for kernel in run.spec.frame:
        ladder = [with_precision(plain, rung) for rung in range(RUNGS)]
        frame[kernel.name] = next((c for c in ladder if proxy.code_bits(kernel.name, c) >= wanted), plain)
    return frame


def _sizes(run: Run, proxy: LogitProxy, importance: dict[str, Tensor]) -> cost.SizeModel:
    """The size model, its overhead taken from a real file."""
    plain = Policy.of({k.name: Choice(4) for k in run.spec.kernels})
    written = len(pack(apply(run.model, run.spec, plain, importance)))
    return cost.SizeModel(run.spec, proxy.code_bits).with_overhead_of(plain, written)


def make_trainer(run: Run) -> Trainer:
    c = run.config
    return Trainer(run.model, run.train, run.validation, run.task, c.train, c.seed, c.device)


def calibration_inputs(run: Run) -> Any:
    inputs, _ = first_samples(run.train, run.config.calibration_samples)
    return to_device(inputs, run.config.device)


def make_reconstruction(run: Run) -> Reconstruction:
    """Of the first samples of the fine-tuning split, as they are: not augmented."""
    batches: list[Any] = []
    left = run.config.reconstruction_samples
    for inputs, _ in run.train.epoch(stream_seed(run.config.seed, "reconstruction"), training=False):
        batches.append(to_device(head(inputs, left), run.config.device))
        left -= batch_length(inputs)
        if left <= 0:
            break
    return Reconstruction(run.model, batches, stream_seed(run.config.seed, "positions"))
