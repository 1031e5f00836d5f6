"""Precision: one ladder of 21 rungs from half a bit per weight and less to 8 bits, for every format.

The upper rungs are bits. Below four bits a coarser step on the four-bit levels beats fewer levels at equal bytes,
because the codes are entropy-coded (docs/decisions/0012): those rungs are quarter octaves of the step. Formats whose
levels do not start at their step, powers of two and those with a zero point, have three and two bits there instead.
"""

from __future__ import annotations

from dataclasses import replace

from hirelc.formats import has_zero_point
from hirelc.policy import COARSEST, Choice, Granularity

PER_OCTAVE = 4  # rungs
CODED_PER_RUNG = 0.2  # bits that a quarter of an octave saves
KNEE = 4  # bits below which the step gets coarser instead
RUNGS = COARSEST + 5
_BITS = (*(2,) * 8, *(3,) * 8, 4, 5, 6, 7, 8)  # of each rung, where the step cannot be coarser


def can_be_coarse(choice: Choice) -> bool:
    """Whether a coarser step leaves the levels of this format where they are, in units of the step."""
    return not has_zero_point(choice) and choice.granularity is not Granularity.LOG


def with_precision(choice: Choice, rung: int) -> Choice:
    """The same format and channels at a rung, 0 to 20; a higher one is never coarser."""
    if not can_be_coarse(choice):
        return replace(choice, bits=_BITS[rung], coarse=0)
    return replace(choice, bits=max(KNEE, _BITS[rung]), coarse=max(0, COARSEST - rung))


def precision_of(choice: Choice) -> int:
    """The rung of a choice; the highest, where several are the same."""
    if choice.bits >= KNEE:
        return max(0, COARSEST + choice.bits - KNEE - choice.coarse)
    return lowest_rung(choice.bits + 1) - 1


def lowest_rung(bits: int) -> int:
    """The lowest rung that stands for so many bits."""
    return _BITS.index(bits)


def highest_rung(bits: int) -> int:
    """The highest rung that stands for so many bits."""
    return RUNGS - 1 - _BITS[::-1].index(bits)


def nominal_bits(choice: Choice) -> float:
    """Roughly what a weight takes once coded, before any training; exact only in the file."""
    return round(choice.bits - CODED_PER_RUNG * choice.coarse, 1)


def precision_words(choice: Choice) -> str:
    """For people: "4 bits", or "4 bits and a step 2.8 times coarser"."""
    times = 2 ** (choice.coarse / PER_OCTAVE)
    return f"{choice.bits} bits" + (f" and a step {times:.1f} times coarser" if choice.coarse else "")
