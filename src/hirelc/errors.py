"""The exception tree. Every message names the module path, file or argument at fault, and the fix.

HirelcError
├── NetworkError     the network cannot be built, traced or compressed
├── PolicyError      a choice, policy, budget or goal is not valid
├── DataError        a data set is missing, malformed or used where it must not be
├── FormatError      a .hirelc file is damaged, hostile or of another network
├── RunError         a run directory or a search cannot go on
└── ExecutionError   a worker or the machine failed
"""

from __future__ import annotations


class HirelcError(Exception):
    """Base of all errors that hirelc raises on purpose."""


class NetworkError(HirelcError):
    """The network cannot be built, traced or compressed."""


class PolicyError(HirelcError):
    """A choice, policy, budget or goal is not valid."""


class DataError(HirelcError):
    """A data set is missing, malformed, or used where it must not be."""


class FormatError(HirelcError):
    """A .hirelc file is damaged, hostile, or belongs to another network.

    :ivar offset: the byte of the file at which it was noticed, or None where there is no such byte
    """

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at byte {offset})")
        self.offset = offset

    def inside(self, where: object) -> FormatError:
        """The same error with the file's name in front."""
        error = FormatError(f"{where}: {self}")
        error.offset = self.offset
        return error


class RunError(HirelcError):
    """A run directory or a search cannot go on."""


class ExecutionError(HirelcError):
    """A worker or the machine failed."""
