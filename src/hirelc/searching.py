"""The search loop: propose, measure, archive, journal."""

from __future__ import annotations

import time

from hirelc.batches import Batches
from hirelc.candidates import Bench, Candidate
from hirelc.checkpoints import save_candidate
from hirelc.config import Config
from hirelc.errors import RunError
from hirelc.landscape import Landscape
from hirelc.policy import Measurement
from hirelc.precision import precision_of, precision_words
from hirelc.preparing import check_enough, fisher_samples
from hirelc.progress import Follower
from hirelc.run import Run
from hirelc.search.archive import Archive
from hirelc.search.baselines import make_search
from hirelc.search.problem import Proposal

HOPELESS = 0.5  # of the length that a policy is expected to have


def images_per_measurement(config: Config, train: Batches) -> int:
    """How many training samples each fine-tune of the search may see.

    :raises RunError: less than a batch
    :raises DataError: too few samples to calibrate on, where nothing is trained
    """
    if config.calibrate_only:
        check_enough(config, train)
        return 0
    measured = config.search.cycles + 1  # the first cycle measures the reference as well
    each = int(config.train.searched - fisher_samples(config, train)) // measured
    if each < config.train.batch_size:
        raise RunError(
            f"a training budget of {config.train.images} images leaves {max(each, 0)} for each of {measured} measurements, "
            f"less than one batch of {config.train.batch_size}: raise --images or lower --cycles"
        )
    return each


def search(run: Run, bench: Bench, landscape: Landscape) -> tuple[Archive[Candidate], list[Measurement], float]:
    begun = time.monotonic()
    settings = run.config.search
    archive: Archive[Candidate] = Archive()
    measurements: list[Measurement] = []
    images = images_per_measurement(run.config, run.train)
    limit = run.goal.byte_limit(run.spec.original_bytes)
    follower = Follower()
    with run.say.stage("preparing the search"):
        strategy = make_search(landscape, run.goal, settings, run.config.seed, follower)
    for cycle in range(settings.cycles):
        with run.say.stage(f"cycle {cycle + 1}/{settings.cycles}: agents", 1.0) as stage:
            follower.follow(stage)
            proposals = strategy.propose(cycle)
        for proposal in proposals:
            expected = landscape.file_bytes(proposal.choices)
            # a goal far below what the policy can reach would only ruin the candidate
            target = expected if limit is None else max(limit, round(HOPELESS * expected))
            measurement, candidate = _measure(run, bench, proposal, target, images, len(measurements))
            measurements.append(measurement)
            learned = strategy.observe(proposal, measurement)
            if candidate is not None:
                archive.add(candidate.policy, measurement, candidate)
            run.directory.journal(
                "measurement",
                cycle=cycle,
                origin=proposal.origin,
                policy=proposal.policy,
                measurement=measurement,
                target_bytes=target,
                expected_bytes=expected,
                trained=None if candidate is None else candidate.trained,
                decisions=proposal.record,
                learned=learned,
            )
            _say_measurement(run, cycle, proposal, measurement, bench.spec.original_bytes)
    if not archive.entries:
        raise RunError(
            "every candidate failed; the first reason: "
            + next((m.failure for m in measurements if m.failure), "the search proposed nothing")
        )
    return archive, measurements, time.monotonic() - begun


def _measure(
    run: Run, bench: Bench, proposal: Proposal, target_bytes: int, images: int, index: int
) -> tuple[Measurement, Candidate | None]:
    with run.say.stage(f"measuring candidate {index + 1}", images or None) as stage:
        name = f"candidate-{index}"
        measurement, candidate = bench.measure(proposal.policy, target_bytes, images, name, stage.advance)
    if candidate is not None:
        save_candidate(run.directory, index, candidate)
    return measurement, candidate


def _say_measurement(run: Run, cycle: int, proposal: Proposal, m: Measurement, original: int) -> None:
    head = f"cycle {cycle + 1} ({proposal.origin}): "
    if m.failure is not None:
        run.say.warn(f"{head}candidate rejected: {m.failure}")
        return
    expected = "" if proposal.predicted_drop is None else f" (predicted {proposal.predicted_drop:+.2f})"
    run.say.line(
        f"{head}{m.size_bytes:,} bytes = {original / m.size_bytes:.1f}x, drop {m.drop_points:+.2f} points{expected}, "
        f"{_in_words(proposal)}, {m.seconds:.0f} s"
    )


def _in_words(proposal: Proposal) -> str:
    decided = [choice for block in proposal.choices for choice in block]
    keep = sum(c.keep_ratio for c in decided) / len(decided)
    lowest, highest = min(decided, key=precision_of), max(decided, key=precision_of)
    return f"from {precision_words(lowest)} to {precision_words(highest)}, {keep:.0%} of the channels on average"
