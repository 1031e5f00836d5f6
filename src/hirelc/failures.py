"""What may go wrong on a machine while all of the program is right: memory that runs out, a data worker that dies."""

from __future__ import annotations

import errno

import torch

_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
_WORKER = "DataLoader worker"


def machine_failure(error: BaseException) -> str | None:
    """Such a failure in words for the user; None for any other error, which is then a fault of data or program."""
    text = " ".join(str(error).split())
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    )
    if memory or (isinstance(error, RuntimeError) and any(words.lower() in text.lower() for words in _MEMORY)):
        return f"out of memory ({text or type(error).__name__}): a smaller --batch-size may help"
    if isinstance(error, RuntimeError) and _WORKER in text:
        return f"a worker of the data loader died ({text}): look at the data set, or read it without workers"
    return None
