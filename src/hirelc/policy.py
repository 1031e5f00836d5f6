"""The two values that cross every border, Policy and Measurement, and the values they are made of.

Nothing here knows torch. All values are frozen, validated when built, and round-trip through JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple

from hirelc.errors import PolicyError

POLICY_VERSION = 2
MIN_BITS, MAX_BITS = 2, 8
COARSEST = 16
FIDELITIES = ("calibrated", "short", "full")


class NumberType(StrEnum):
    """INT: integers; FLOAT: minifloats with sign, exponent and mantissa (see `formats`)."""

    INT = "int"
    FLOAT = "float"


class Granularity(StrEnum):
    """How a kernel's scale is laid out.

    UNIFORM      one scale per tensor
    LOG          one scale per tensor, levels are zero and signed powers of two (for either number type)
    PER_CHANNEL  one scale per output channel, found once by error-minimising search
    LEARNED      one scale per output channel, trained together with the weights (LSQ)
    """

    UNIFORM = "uniform"
    LOG = "log"
    PER_CHANNEL = "per_channel"
    LEARNED = "learned"


class Strategy(StrEnum):
    """What a block should lean on: bits only, channels only, or whatever pays."""

    QUANTIZATION = "quantization"
    PRUNING = "pruning"
    AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """What is done to one kernel.

    >>> hirelc.Choice(bits=4, keep_ratio=0.75, granularity="learned").number_type.value
    'int'
    >>> hirelc.Choice(bits=9)
    Traceback (most recent call last):
    hirelc.errors.PolicyError: bits must be a whole number from 2 to 8, not 9

    :param bits: 2..8 per weight
    :param keep_ratio: fraction of output channels kept, in (0, 1]
    :param coarse: 0..16 quarter octaves by which the step is coarser at the start than that of least error. Codes of a
        coarser step take fewer bits in the file: this is how a weight comes to take less than one.
    """

    bits: int = 8
    keep_ratio: float = 1.0
    number_type: NumberType = NumberType.INT
    granularity: Granularity = Granularity.PER_CHANNEL
    coarse: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not MIN_BITS <= self.bits <= MAX_BITS:
            raise PolicyError(f"bits must be a whole number from {MIN_BITS} to {MAX_BITS}, not {self.bits!r}")
        if not (isinstance(self.keep_ratio, float | int) and 0 < self.keep_ratio <= 1):
            raise PolicyError(f"keep_ratio must be above 0 and at most 1, not {self.keep_ratio!r}")
        if isinstance(self.coarse, bool) or not isinstance(self.coarse, int) or not 0 <= self.coarse <= COARSEST:
            raise PolicyError(f"coarse must be a whole number from 0 to {COARSEST}, not {self.coarse!r}")
        object.__setattr__(self, "keep_ratio", float(self.keep_ratio))
        try:
            object.__setattr__(self, "number_type", NumberType(self.number_type))
            object.__setattr__(self, "granularity", Granularity(self.granularity))
        except ValueError as error:
            raise PolicyError(str(error)) from None


@dataclass(frozen=True)
class Policy(Mapping[str, Choice]):
    """A choice for every kernel, keyed by the kernel's parameter name. Hashable, ordered as given.

    >>> policy = hirelc.Policy.of({"conv.weight": hirelc.Choice(bits=4), "head.weight": hirelc.Choice()})
    >>> policy.updated({"conv.weight": hirelc.Choice(bits=3)})["conv.weight"].bits
    3
    >>> hirelc.Policy.from_json(policy.to_json()) == policy
    True
    """

    choices: tuple[tuple[str, Choice], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple((name, choice) for name, choice in self.choices))
        object.__setattr__(self, "_index", dict(self.choices))
        if len(self._index) != len(self.choices):  # type: ignore[attr-defined]
            raise PolicyError("a policy names a kernel twice")

    @classmethod
    def of(cls, choices: Mapping[str, Choice]) -> Policy:
        return cls(tuple(choices.items()))

    def __getitem__(self, name: str) -> Choice:
        return self._index[name]  # type: ignore[attr-defined,no-any-return]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    def __hash__(self) -> int:
        return hash(self.choices)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and self.choices == other.choices

    def updated(self, changes: Mapping[str, Choice]) -> Policy:
        """The same policy with some kernels decided anew."""
        unknown = [name for name in changes if name not in self]
        if unknown:
            raise PolicyError(f"the policy has no kernel {unknown[0]!r}")
        return Policy(tuple((name, changes.get(name, choice)) for name, choice in self.choices))

    def to_json(self) -> dict[str, Any]:
        return {"version": POLICY_VERSION, "choices": {name: asdict(choice) for name, choice in self.choices}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        if set(data) != {"version", "choices"} or data["version"] not in (1, POLICY_VERSION):
            raise PolicyError(f"not a version {POLICY_VERSION} policy: keys {sorted(data)}")
        try:
            return cls(tuple((name, Choice(**fields)) for name, fields in data["choices"].items()))
        except TypeError as error:
            raise PolicyError(f"a choice has an unknown or missing key: {error}") from None

    @property
    def digest(self) -> str:
        """Twelve hex digits that name this policy."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Budget:
    """What the high level grants one block.

    :param target_fraction: bytes of the compressed block / bytes of the block in fp32
    :param max_pruning: largest fraction of channels that may go (1 - lowest keep_ratio)
    :param min_precision: lowest rung of the ladder (see `precision`) that its kernels may have
    :param max_drop: accuracy drop in points that the block may cause
    """

    target_fraction: float
    max_pruning: float
    min_precision: int
    strategy: Strategy
    max_drop: float

    def __post_init__(self) -> None:
        if not 0 < self.target_fraction <= 1:
            raise PolicyError(f"target_fraction must be in (0, 1], not {self.target_fraction}")
        if not 0 <= self.max_pruning < 1:
            raise PolicyError(f"max_pruning must be in [0, 1), not {self.max_pruning}")
        if self.min_precision < 0:
            raise PolicyError(f"min_precision must be 0 or more, not {self.min_precision}")
        object.__setattr__(self, "strategy", Strategy(self.strategy))


@dataclass(frozen=True)
class Limits:
    """What a network may take at most, each None where it does not matter; all given limits hold together.

    >>> Limits(size_bytes=1000, macs=5e6).excess(size_bytes=1250, macs=4_000_000)
    {'size_bytes': 0.25}

    :param size_bytes: of the whole file
    :param macs: multiply-accumulates for one sample
    :param latency_ms: of one call
    """

    size_bytes: float | None = None
    macs: float | None = None
    latency_ms: float | None = None

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.size_bytes, self.macs, self.latency_ms))

    def excess(self, size_bytes: float, macs: float, latency_ms: float | None = None) -> dict[str, float]:
        """What is exceeded -> by which part of its limit; empty where all limits hold.

        :raises PolicyError: the latency is limited but not known
        """
        if self.latency_ms is not None and latency_ms is None:
            raise PolicyError("the goal limits the latency, which was not measured")
        used = {"size_bytes": size_bytes, "macs": macs, "latency_ms": latency_ms}
        pairs = {name: (getattr(self, name), value) for name, value in used.items()}
        return {
            name: value / limit - 1
            for name, (limit, value) in pairs.items()
            if limit is not None and value is not None and value > limit
        }


@dataclass(frozen=True)
class Goal:
    """What the user wants. At least one limit; all given limits hold together.

    >>> hirelc.Goal(ratio=12, max_drop=0.5).byte_limit(original_bytes=1_200_000)
    100000

    :param ratio: whole fp32 safetensors file / whole compressed file, at least this
    :param max_drop: accuracy points lost, at most this
    :param max_bytes: bytes of the whole compressed file, at most this
    :param max_macs: multiply-accumulates for one sample, at most this
    :param max_latency_ms: milliseconds of one call, at most this (docs/goals.md says of what, and how it is measured)
    """

    ratio: float | None = None
    max_drop: float | None = None
    max_bytes: int | None = None
    max_macs: float | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, each.name) is None for each in fields(self)):
            raise PolicyError(
                "a goal needs a limit: give a ratio (--ratio), max_bytes (--max-bytes), max_drop (--max-drop), "
                "max_macs (--max-macs) or max_latency_ms (--max-latency-ms)"
            )
        if self.ratio is not None and not (math.isfinite(self.ratio) and self.ratio > 1):
            raise PolicyError(f"the ratio must be above 1, not {self.ratio}")
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise PolicyError(f"max_drop must be zero or more points, not {self.max_drop}")
        for name in ("max_bytes", "max_macs", "max_latency_ms"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise PolicyError(f"{name} must be above 0, not {value}")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Goal:
        """A goal as runs hold it; limits that older runs do not name are not set.

        :raises PolicyError: a limit that this version does not know
        """
        unknown = sorted(set(data) - {each.name for each in fields(cls)})
        if unknown:
            raise PolicyError(f"a goal has no limit {unknown[0]!r}")
        return cls(**data)

    def byte_limit(self, original_bytes: int) -> int | None:
        """The tightest limit on the file's length, in bytes; None when the goal sets none."""
        limits = [] if self.ratio is None else [int(original_bytes / self.ratio)]
        if self.max_bytes is not None:
            limits.append(self.max_bytes)
        return min(limits, default=None)

    def limits(self, original_bytes: int) -> Limits:
        """All limits but that of the drop."""
        return Limits(self.byte_limit(original_bytes), self.max_macs, self.max_latency_ms)

    @property
    def leaves_open(self) -> bool:
        """Whether neither bytes nor drop are limited, only what a call costs."""
        return self.ratio is None and self.max_bytes is None and self.max_drop is None


class Verdict(NamedTuple):
    """What a network does on a split.

    :param points: of the task's metric
    :param excess_loss: mostly the task's own, beyond the original's, a mean over samples; None where it was not asked
        for, or is no number
    """

    points: float
    excess_loss: float | None = None

    def beats(self, other: Verdict) -> bool:
        """Whether this is as good or better: by the loss where both have one."""
        if self.excess_loss is None or other.excess_loss is None:
            return self.points >= other.points
        return self.excess_loss <= other.excess_loss


@dataclass(frozen=True)
class Measurement:
    """What a policy is worth, as read back from its file.

    :param size_bytes: length of the whole compressed file
    :param accuracy: task metric of the network read back from the file, in percent
    :param drop_points: original minus compressed accuracy on the same split, in points
    :param macs: multiply-accumulates of the kernels for one sample
    :param split: which split was measured ("search-validation" or "test")
    :param images_seen: training samples (forward and backward) that this measurement cost
    :param failure: why the candidate was rejected; None when it stands
    :param fidelity: how much training went before: "calibrated" (none), "short", or "full"
    :param excess_loss: mostly the task's own, beyond the original's on the same samples; None where none was measured
    :param likely_drop: what this loss makes of the drop, in points: less a matter of chance. None where it says nothing
    """

    size_bytes: int
    accuracy: float
    drop_points: float
    macs: int
    split: str
    images_seen: int = 0
    seconds: float = 0.0
    latency_ms: float | None = None
    failure: str | None = None
    extra: Mapping[str, float] = field(default_factory=dict, hash=False)
    fidelity: str = "full"
    excess_loss: float | None = None
    likely_drop: float | None = None

    def __post_init__(self) -> None:
        if self.fidelity not in FIDELITIES:
            raise PolicyError(f"unknown fidelity {self.fidelity!r}: use one of {', '.join(FIDELITIES)}")
        if self.split not in ("search-validation", "test"):
            raise PolicyError(f"unknown split {self.split!r}")

    @property
    def judged_drop(self) -> float:
        """The drop to decide by, in points."""
        return self.drop_points if self.likely_drop is None else self.likely_drop

    @property
    def verdict(self) -> Verdict:
        return Verdict(-self.drop_points, self.excess_loss)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "extra": dict(self.extra)}
