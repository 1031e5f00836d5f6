"""Settings of a run: small frozen values, validated when built, versioned JSON, unknown keys refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hirelc.errors import RunError

CONFIG_VERSION = 1
STRATEGY_NAMES = ("hirelc", "uniform", "random", "greedy", "knapsack", "evolution", "flat")
PARTS = (
    "sensitivity", "warm-start", "surrogate", "ensemble", "high-level", "trials", "swaps", "pruning", "quantization", "joint"
)  # fmt: skip


def _positive(owner: object, *names: str) -> None:
    for name in names:
        if getattr(owner, name) <= 0:
            raise RunError(f"{type(owner).__name__}.{name} must be above 0, not {getattr(owner, name)}")


@dataclass(frozen=True)
class SearchConfig:
    """The hierarchical search.

    :param cycles: rounds of budgets, block policies, vote and rigorous measurement
    :param trials: policies of a cycle that are measured before one of them is trained in full: the vote, the best so far, and
        others that promise improvement; 1 is the vote alone
    :param low_level_steps: environment steps per low-level agent and cycle
    :param high_level_steps: environment steps per high-level agent and cycle
    :param levels: how many levels the precision and keep actions have; 21 name every rung of `precision` (the paper: 15 bits)
    :param min_bits: lowest bits; below 4, formats whose step can be coarser are that instead (see `precision`)
    :param min_keep: lowest keep_ratio that any budget may grant
    :param strategy: who proposes policies: "hirelc", or a rival of it, one of `STRATEGY_NAMES`
    :param without: the part of "hirelc" that is switched off to see what it is worth, one of `PARTS`; None: none is
    """

    cycles: int = 4
    trials: int = 4
    low_level_steps: int = 768
    high_level_steps: int = 768
    levels: int = 21
    min_keep: float = 0.5
    min_bits: int = 2
    max_bits: int = 8
    surrogate_min_samples: int = 4
    strategy: str = "hirelc"
    without: str | None = None

    def __post_init__(self) -> None:
        _positive(self, "cycles", "trials", "low_level_steps", "high_level_steps", "surrogate_min_samples")
        if self.levels < 2:
            raise RunError("SearchConfig.levels must be at least 2")
        if not 0 < self.min_keep <= 1:
            raise RunError(f"SearchConfig.min_keep must be in (0, 1], not {self.min_keep}")
        if not 2 <= self.min_bits <= self.max_bits <= 8:
            raise RunError("SearchConfig needs 2 <= min_bits <= max_bits <= 8")
        if self.strategy not in STRATEGY_NAMES:
            raise RunError(f"unknown search strategy {self.strategy!r}: use one of {', '.join(STRATEGY_NAMES)}")
        if self.without is not None and self.without not in PARTS:
            raise RunError(f"unknown part {self.without!r} to do without: use one of {', '.join(PARTS)}")
        if self.without is not None and self.strategy != "hirelc":
            raise RunError(f"only hirelc has parts: the strategy {self.strategy} cannot do without {self.without}")

    @property
    def contenders(self) -> int:
        """How many policies compete in a cycle; only hirelc makes trials."""
        return self.trials if self.strategy == "hirelc" and self.without != "trials" else 1

    @property
    def exploring(self) -> int:
        """How many cycles explore: agents act as they sample, and their own wishes compete. In later ones they act as they are
        surest, and what lies around the vote and the best policy competes, too."""
        return self.cycles // 2

    @classmethod
    def short(cls) -> SearchConfig:
        """What `Config(calibrate_only=True)` searches with: a whole run is to take minutes."""
        return cls(cycles=2, trials=1, low_level_steps=192, high_level_steps=192)


@dataclass(frozen=True)
class TrainConfig:
    """Fine-tuning, quantization-aware and distilled from the original.

    :param images: training samples (forward and backward) that search and final fine-tune may see together
    :param seconds: wall time of the whole run; with it, `images` and the numbers of the search follow from the time
    :param search_share: share of `images` spent on the measurements of the search
    :param learning_rate: peak of the schedule; None chooses 2e-3 with BatchNorm in the network, else 1e-3, for a
        batch of 128; half the samples, 1/sqrt(2) of it
    :param final_rate: peak learning rate of the final fine-tune, as a factor; None goes by the number of samples:
        0.5 from 10,000 on, with fewer less, 0.3 at the least
    :param distill_weight: weight of the distillation loss against the task's own loss
    :param precision: "auto" (bf16 where the CPU or GPU multiplies it natively), "bf16" or "fp32"
    :param rate_term: whether the loss holds the coded bits (else only steps and rounding lead to the size)
    :param final: whether the picked policy gets a long fine-tune; without, all `images` go to the search
    """

    images: int = 240_000
    seconds: float | None = None
    search_share: float = 0.3
    batch_size: int = 64
    learning_rate: float | None = None
    final_rate: float | None = None
    weight_decay: float = 1e-4
    distill_weight: float = 0.7
    temperature: float = 2.0
    evaluations: int = 12
    precision: str = "auto"
    rate_term: bool = True
    control: bool = True
    final: bool = True

    def __post_init__(self) -> None:
        _positive(self, "images", "batch_size", "temperature", "evaluations")
        optional = ("learning_rate", "final_rate", "seconds")
        _positive(self, *(name for name in optional if getattr(self, name) is not None))
        if not 0 < self.search_share < 1:
            raise RunError(f"TrainConfig.search_share must be between 0 and 1, not {self.search_share}")
        if not 0 <= self.distill_weight <= 1:
            raise RunError(f"TrainConfig.distill_weight must be from 0 to 1, not {self.distill_weight}")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise RunError(f"unknown precision {self.precision!r}: use auto, bf16 or fp32")

    @property
    def searched(self) -> float:
        """Training samples for all measurements of the search."""
        return self.images * (self.search_share if self.final else 1.0)


@dataclass(frozen=True)
class Config:
    """All settings of a run but its goal.

    >>> config = hirelc.Config(seed=7, train=hirelc.TrainConfig(images=1_000_000))
    >>> hirelc.Config.from_json(config.to_json()) == config
    True

    :param seed: the root of every random stream of the run
    :param blocks: regular expression that names the blocks; None finds them by repetition
    :param frame_bits: bits of the kernels outside any block; None makes them finer than the goal leaves the blocks
    :param importance: by what channels are kept: "fisher" (Fisher x squared weight) or "magnitude" (squared weight)
    :param fisher_samples: training samples for the Fisher sensitivity
    :param calibration_samples: training samples on which the logit-MSE proxy, and ranges of activations, are measured
    :param align: channels are kept in multiples of it, or all of them
    :param activations: "float", or "int8": 8 bits in training and in the file, for export to integer runtimes
    :param calibrate_only: no training: kernels are reconstructed, layer by layer, from calibration samples. A `search`
        that is left at its defaults is then `SearchConfig.short()`
    :param reconstruction_samples: training samples that this goes by
    :param latency_batch: samples of a call whose latency a goal limits
    :param latency_table: latency.json of another run of this network on this machine, to decide by that; None measures one
    """

    seed: int = 0
    blocks: str | None = None
    frame_bits: int | None = None
    importance: str = "fisher"
    fisher_samples: int = 256
    calibration_samples: int = 128
    align: int = 1
    activations: str = "float"
    calibrate_only: bool = False
    reconstruction_samples: int = 256
    latency_batch: int = 1
    latency_table: str | None = None
    device: str = "cpu"
    search: SearchConfig = field(default_factory=SearchConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        _positive(self, "fisher_samples", "calibration_samples", "align", "reconstruction_samples", "latency_batch")
        if self.frame_bits is not None and not 2 <= self.frame_bits <= 8:
            raise RunError(f"Config.frame_bits must be from 2 to 8, not {self.frame_bits}")
        if self.activations not in ("float", "int8"):
            raise RunError(f"unknown activations {self.activations!r}: use float or int8")
        if self.importance not in ("fisher", "magnitude"):
            raise RunError(f"unknown importance {self.importance!r}: use fisher or magnitude")
        if self.calibrate_only and self.search == SearchConfig():
            object.__setattr__(self, "search", SearchConfig.short())
        if self.calibrate_only and self.train.seconds is not None:
            raise RunError(
                "a time budget plans the training, and with calibrate_only nothing is trained: leave one of them out"
            )

    def to_json(self) -> dict[str, Any]:
        return {"version": CONFIG_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Config:
        values = dict(data)
        if values.pop("version", None) != CONFIG_VERSION:
            raise RunError(f"not a version {CONFIG_VERSION} configuration")
        parts = {"search": SearchConfig, "train": TrainConfig}
        for name, kind in parts.items():
            values[name] = kind(**_known(kind, values.get(name, {})))
        return cls(**_known(cls, values))


GONE = {"patience"}  # settings that earlier runs have in their files, and that mean nothing any more


def _known(kind: Any, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """:raises RunError: a setting that this kind of configuration lacks, and never had"""
    names = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - names - GONE)
    if unknown:
        raise RunError(f"{kind.__name__} has no setting {unknown[0]!r}")
    return {name: value for name, value in values.items() if name in names}
