"""The active-learning cycle, wired: the one place that knows all the parts.

baseline -> Fisher -> proxy -> [budgets -> block policies -> vote -> fine-tune -> measure] x cycles -> pick ->
long fine-tune -> file -> read back -> test split, once.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hirelc import cost
from hirelc.artifact.container import pack, read
from hirelc.artifact.load import build
from hirelc.batches import Batches, Sealed, as_batches, first_samples
from hirelc.candidates import Bench, Candidate
from hirelc.compression.apply import apply
from hirelc.compression.rate import expected_bits_per_weight
from hirelc.config import Config
from hirelc.data_checks import check_classes, compare_splits, look_through
from hirelc.errors import RunError
from hirelc.labelled import Labelled, LabelledSealed
from hirelc.landscape import Landscape
from hirelc.measure.evaluate import accuracy
from hirelc.measure.finetune import Trainer
from hirelc.measure.proxy import LogitProxy
from hirelc.measure.sensitivity import Sensitivity, fisher_sensitivity
from hirelc.models import answers, check_fits, check_task, place, settled
from hirelc.network.calling import to_device
from hirelc.network.spec import NetworkSpec, Pruning
from hirelc.network.trace import check_module, float_copy, trace
from hirelc.policy import Choice, Goal, Measurement, Policy
from hirelc.progress import Follower, Reporter, RichReporter, Stage
from hirelc.results import Result, Row
from hirelc.search.archive import Archive
from hirelc.search.baselines import make_search
from hirelc.search.problem import Proposal
from hirelc.seeds import stream_seed
from hirelc.store import RunDirectory, check_unused, environment
from hirelc.task import CLASSIFICATION, Task

MODEL_FILE = "model.hirelc"
HOPELESS = 0.5  # of the length that a policy is expected to have
MANY_SAMPLES, LEAST_FINAL_RATE = 20_000, 0.3
CHECKED_SAMPLES = 4096  # of each split, before the run starts


def compress(
    model: nn.Module,
    train: object,
    val: object,
    goal: Goal,
    out: str | Path,
    *,
    test: object | None = None,
    config: Config | None = None,
    task: Task = CLASSIFICATION,
    reporter: Reporter | None = None,
) -> Result:
    """Compresses a network to a goal and writes `out`/model.hirelc.

    :param model: any trained module; it is not changed
    :param train: fine-tuning data: a DataLoader, a Dataset, two tensors (x, y), or `Batches`
    :param val: the search-validation split, disjoint from both others
    :param test: optional; read once per reported number, after the search
    :param out: a new folder for the run
    :returns: the table of original, control and compressed, and where the file lies; `shortfall` says why a goal
        was missed (the best policy found is delivered all the same)
    :raises HirelcError: with the cause and the fix
    """
    check_module(model)
    config = config or Config()
    say = reporter or RichReporter()
    batch = config.train.batch_size
    labelled = task.targets != "none"
    splits: tuple[Batches, Batches] = as_batches(train, batch, labelled), as_batches(val, batch, labelled)
    sealed = None if test is None else test if isinstance(test, Sealed) else Sealed(as_batches(test, batch, labelled))
    # all that can be wrong with the input is found before a folder is made: a second try may use the same name
    check_unused(out)
    _images_per_measurement(config, splits[0])
    original = _prepared(model, config.device)
    task = settled(task, original, splits[0], config.device)
    for note in _check_data(original, task, *splits, config.device):
        say.warn(note)
    if task.label is not None:
        label = answers(original, task, config.device)
        splits, sealed = (splits[0], Labelled(splits[1], label)), None if sealed is None else LabelledSealed(sealed, label)
    spec = trace(original, first_samples(splits[0], 2)[0], config.blocks)
    run = _Run(
        model=original,
        spec=spec,
        train=splits[0],
        validation=splits[1],
        test=sealed,
        goal=goal,
        config=config,
        task=task,
        directory=RunDirectory.create(out),
        say=say,
    )
    try:
        return run.execute()
    except KeyboardInterrupt:
        run.directory.journal("interrupted")
        raise


def _prepared(model: nn.Module, device: str) -> nn.Module:
    """A float32 copy in eval mode, on the device; a compiled module is unwrapped."""
    return place(float_copy(getattr(model, "_orig_mod", model)), device)


def _check_data(model: nn.Module, task: Task, train: Batches, validation: Batches, device: str) -> list[str]:
    """What is odd about the splits.

    :raises DataError: the network does not take these inputs, or the targets are not what it or the task takes
    """
    found = []
    for split, where in ((train, "the fine-tuning split"), (validation, "the search-validation split")):
        outputs = check_fits(model, split, device, task)
        seen = look_through(split, where, CHECKED_SAMPLES, task.targets)
        check_classes(seen.classes, outputs, where)
        check_task(model, split, device, task)
        found.append(seen)
    return compare_splits(found[0], found[1], task.targets)


def _fisher_samples(config: Config, train: Batches) -> int:
    return min(config.fisher_samples, train.samples)


def _images_per_measurement(config: Config, train: Batches) -> int:
    """How many training samples each fine-tune of the search may see.

    :raises RunError: less than a batch
    """
    measured = config.search.cycles + 1  # the first cycle measures the reference as well
    each = int(config.train.images * config.train.search_share - _fisher_samples(config, train)) // measured
    if each < config.train.batch_size:
        raise RunError(
            f"a training budget of {config.train.images} images leaves {max(each, 0)} for each of {measured} measurements, "
            f"less than one batch of {config.train.batch_size}: raise --images or lower --cycles"
        )
    return each


@dataclass
class _Run:
    """One run, start to end."""

    model: nn.Module
    spec: NetworkSpec
    train: Batches
    validation: Batches
    test: Sealed | None
    goal: Goal
    config: Config
    task: Task
    directory: RunDirectory
    say: Reporter

    def execute(self) -> Result:
        self.directory.write_json("config.json", self.config)
        self.directory.write_json("environment.json", environment())
        self.directory.journal("start", goal=self.goal, seed=self.config.seed, train=self.train.samples)
        self._describe()
        baseline = self._baseline()
        sensitivity = self._sensitivity()
        importance = self._importance(sensitivity)
        bench = Bench(self.model, self.spec, self._trainer(), importance, sensitivity.fisher, baseline, sensitivity.samples)
        if self.config.activations == "int8":
            bench.calibration = self._calibration()
        landscape = self._landscape(sensitivity, importance)
        archive, measurements, search_seconds = self._search(bench, landscape)
        pick = archive.pick(self.goal, self.spec.original_bytes)
        self.directory.journal("pick", policy=pick.entry.policy.digest, measurement=pick.entry.measurement)
        return self._finish(bench, pick.entry.payload, baseline, measurements, search_seconds)

    # -- what the network and the data are ------------------------------------------------------------------

    def _describe(self) -> None:
        spec = self.spec
        for note in spec.notes:
            self.say.detail(note)
        self.directory.journal(
            "network",
            blocks=[{"name": b.name, "kernels": b.kernels} for b in spec.blocks],
            frame=[k.name for k in spec.frame],
            untouched=[{"name": u.name, "shape": u.shape, "reason": u.reason} for u in spec.untouched],
            original_bytes=spec.original_bytes,
            notes=spec.notes,
        )
        coupled = sum(k.pruning is Pruning.COUPLED for k in spec.kernels)
        self.say.line(
            f"network: {spec.parameters:,} parameters, {len(spec.kernels)} kernels in {len(spec.blocks)} blocks and a frame "
            f"of {len(spec.frame)}; {coupled} kernels lose channels on both sides; fp32 file {spec.original_bytes:,} bytes"
        )

    def _baseline(self) -> float:
        with self.say.stage("measuring the original"):
            baseline = accuracy(self.model, self.validation, self.task, device=self.config.device)
        self.directory.journal("baseline", accuracy=baseline, split="search-validation", samples=self.validation.samples)
        self.say.line(f"original: {baseline:.2f} {self.task.unit} {self.task.name} on the search-validation split")
        return baseline

    def _sensitivity(self) -> Sensitivity:
        samples = _fisher_samples(self.config, self.train)
        with self.say.stage("Fisher sensitivity", samples) as stage:
            found = fisher_sensitivity(
                self.model,
                self.spec,
                self.train,
                self.task,
                samples,
                seed=stream_seed(self.config.seed, "fisher"),
                device=self.config.device,
                progress=lambda _done: stage.advance(),
            )
        blocks = {b.name: value for b, value in zip(self.spec.blocks, found.blocks, strict=True)}
        self.directory.journal("sensitivity", samples=found.samples, kernels=found.kernels, blocks=blocks)
        return found

    def _importance(self, sensitivity: Sensitivity) -> dict[str, Tensor]:
        weights = dict(self.model.named_parameters())
        squared = {k.name: weights[k.name].detach().float().square() for k in self.spec.kernels}
        if self.config.importance == "magnitude":
            return squared
        # a floor, so that rows whose gradients vanish on a few hundred samples still rank by magnitude
        return {n: w * (sensitivity.fisher[n] + 1e-3 * sensitivity.fisher[n].mean()) for n, w in squared.items()}

    def _landscape(self, sensitivity: Sensitivity, importance: dict[str, Tensor]) -> Landscape:
        kernels = sum(k.block is not None for k in self.spec.kernels)
        with self.say.stage("logit proxy", kernels) as stage:
            proxy = LogitProxy(
                self.model,
                self.spec,
                self._calibration(),
                importance,
                sensitivity.fisher,
                progress=lambda: stage.advance(),
                task=self.task,
            )
        self.directory.journal("proxy", forward_passes=proxy.forward_passes, samples=self.config.calibration_samples)
        return Landscape(self._sizes(proxy, importance), sensitivity, proxy, self.config.frame_bits)

    def _calibration(self) -> Any:
        inputs, _ = first_samples(self.train, self.config.calibration_samples)
        return to_device(inputs, self.config.device)

    def _sizes(self, proxy: LogitProxy, importance: dict[str, Tensor]) -> cost.SizeModel:
        """The size model, its overhead taken from a real file; then with what training will save."""
        plain = Policy.of({k.name: Choice(4) for k in self.spec.kernels})
        written = len(pack(apply(self.model, self.spec, plain, importance)))
        measured = cost.SizeModel(self.spec, proxy.code_bits).with_overhead_of(plain, written)
        return replace(measured, rate=lambda name, choice: expected_bits_per_weight(proxy.code_bits(name, choice)))

    def _trainer(self) -> Trainer:
        c = self.config
        return Trainer(self.model, self.train, self.validation, self.task, c.train, c.seed, c.device)

    # -- the search -----------------------------------------------------------------------------------------

    def _search(self, bench: Bench, landscape: Landscape) -> tuple[Archive[Candidate], list[Measurement], float]:
        begun = time.monotonic()
        settings = self.config.search
        archive: Archive[Candidate] = Archive()
        measurements: list[Measurement] = []
        images = _images_per_measurement(self.config, self.train)
        limit = self.goal.byte_limit(self.spec.original_bytes)
        follower = Follower()
        with self.say.stage("preparing the search"):
            search = make_search(landscape, self.goal, settings, self.config.seed, follower)
        for cycle in range(settings.cycles):
            with self.say.stage(f"cycle {cycle + 1}/{settings.cycles}: agents", 1.0) as stage:
                follower.follow(stage)
                proposals = search.propose(cycle)
            for proposal in proposals:
                expected = landscape.file_bytes(proposal.choices)
                # a goal far below what the policy can reach would only ruin the candidate
                target = expected if limit is None else max(limit, round(HOPELESS * expected))
                measurement, candidate = self._measure(bench, proposal, target, images, len(measurements))
                measurements.append(measurement)
                learned = search.observe(proposal, measurement)
                if candidate is not None:
                    archive.add(candidate.policy, measurement, candidate)
                self.directory.journal(
                    "measurement",
                    cycle=cycle,
                    origin=proposal.origin,
                    policy=proposal.policy,
                    measurement=measurement,
                    decisions=proposal.record,
                    learned=learned,
                )
                self._say_measurement(cycle, proposal, measurement, bench.spec.original_bytes)
        if not archive.entries:
            raise RunError(
                "every candidate failed; the first reason: "
                + next((m.failure for m in measurements if m.failure), "the search proposed nothing")
            )
        return archive, measurements, time.monotonic() - begun

    def _measure(
        self, bench: Bench, proposal: Proposal, target_bytes: int, images: int, index: int
    ) -> tuple[Measurement, Candidate | None]:
        with self.say.stage(f"measuring candidate {index + 1}", images) as stage:
            name = f"candidate-{index}"
            measurement, candidate = bench.measure(proposal.policy, target_bytes, images, name, stage.advance)
        if candidate is not None:
            self.directory.write_bytes(f"candidates/{index:03d}.hirelc", candidate.data)
        return measurement, candidate

    def _say_measurement(self, cycle: int, proposal: Proposal, m: Measurement, original: int) -> None:
        head = f"cycle {cycle + 1} ({proposal.origin}): "
        if m.failure is not None:
            self.say.warn(f"{head}candidate rejected: {m.failure}")
            return
        expected = "" if proposal.predicted_drop is None else f" (predicted {proposal.predicted_drop:+.2f})"
        mean_bits = _mean_bits(proposal)
        self.say.line(
            f"{head}{m.size_bytes:,} bytes = {original / m.size_bytes:.1f}x, drop {m.drop_points:+.2f} points{expected}, "
            f"{mean_bits}, {m.seconds:.0f} s"
        )

    # -- the end --------------------------------------------------------------------------------------------

    def _finish(
        self, bench: Bench, picked: Candidate, baseline: float, measurements: list[Measurement], search_seconds: float
    ) -> Result:
        begun = time.monotonic()
        compressed = bench.revive(picked)
        images = self.config.train.images - bench.images_seen
        limit = max(self.goal.byte_limit(bench.spec.original_bytes) or 0, len(picked.data))
        with self.say.stage("final fine-tune", images) as stage:
            trained, data = bench.finetune(compressed, limit, images, **self._final(stage))
        bench.images_seen += trained.images
        path = self.directory.write_bytes(MODEL_FILE, data)
        score = bench.read_back_accuracy(data)
        self.directory.journal("final", trained=trained, size_bytes=len(data), accuracy=score, policy=compressed.policy)
        seconds = time.monotonic() - begun + search_seconds
        spec = bench.spec
        control, control_row = self._control(bench, images)
        tests = self._test([self.model, control, build(read(data), copy.deepcopy(self.model))])
        result = Result(
            folder=self.directory.path,
            path=path,
            goal=self.goal,
            policy=compressed.policy,
            original=Row("original", spec.original_bytes, 1.0, baseline, tests[0], cost.macs(spec), spec.parameters, 0.0),
            control=None if control_row is None else replace(control_row, test=tests[1]),
            compressed=Row(
                "compressed",
                len(data),
                spec.original_bytes / len(data),
                score,
                tests[2],
                cost.macs(spec, compressed.policy),
                cost.parameters(spec, compressed.policy),
                seconds,
            ),
            measurements=tuple(measurements),
            images_seen=bench.images_seen,
            shortfall=_shortfall(self.goal, spec.original_bytes, len(data), baseline - score),
        )
        self.directory.write_json("result.json", result)
        self.directory.journal("result", **{k: v for k, v in result.to_json().items() if k != "policy"})
        if result.shortfall:
            self.say.warn(f"short of the goal: {result.shortfall}; the best policy found was delivered")
        return result

    def _final(self, stage: Stage) -> dict[str, Any]:
        """The long fine-tune, the same for the compressed network and the control: data, order, schedule, teacher."""
        rate = self.config.train.final_rate
        if rate is None:  # few samples, seen many times at a high rate: more is forgotten than learned
            rate = min(1.0, max(LEAST_FINAL_RATE, self.train.samples / MANY_SAMPLES))
        return {"name": "final", "rate_factor": rate, "progress": stage.advance}

    def _control(self, bench: Bench, images: int) -> tuple[nn.Module | None, Row | None]:
        """The original given the same final fine-tune, uncompressed: an accuracy gain that it has too is not ours."""
        if not self.config.train.control:
            return None, None
        control = copy.deepcopy(self.model)
        with self.say.stage("control: the original, trained on", images) as stage:
            trained = bench.trainer.finetune(control, images, **self._final(stage))
        score = accuracy(control, self.validation, self.task, device=self.config.device)
        self.directory.journal("control", trained=trained, accuracy=score)
        spec = bench.spec
        row = Row("control", spec.original_bytes, 1.0, score, None, cost.macs(spec), spec.parameters, trained.seconds)
        return control, row

    def _test(self, networks: list[nn.Module | None]) -> list[float | None]:
        """The test split, opened at the very end and read once per network."""
        if self.test is None:
            return [None] * len(networks)
        self.test.unseal()
        device = self.config.device
        with self.say.stage("test split", len(networks)) as stage:
            scores: list[float | None] = []
            for network in networks:
                score = None if network is None else accuracy(network.to(device), self.test, self.task, device=device)
                scores.append(score)
                stage.advance()
        self.directory.journal("test", readings=self.test.readings, scores=scores)
        return scores


def _mean_bits(proposal: Proposal) -> str:
    decided = [choice for block in proposal.choices for choice in block]
    bits = sum(c.bits for c in decided) / len(decided)
    keep = sum(c.keep_ratio for c in decided) / len(decided)
    return f"{bits:.1f} bits and {keep:.0%} of the channels on average"


def _shortfall(goal: Goal, original: int, size: int, drop: float) -> str | None:
    """Why the delivered file misses the goal, judged on the search-validation split; None when it does not."""
    reasons = []
    limit = goal.byte_limit(original)
    if limit is not None and size > limit:
        reasons.append(f"the file has {size:,} bytes ({original / size:.2f}x) where {limit:,} were allowed")
    if goal.max_drop is not None and drop > goal.max_drop:
        reasons.append(f"{drop:.2f} points are lost on the search-validation split where {goal.max_drop:.2f} were allowed")
    return "; ".join(reasons) or None
