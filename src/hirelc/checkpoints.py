"""What a run goes on from, kept in its folder.

candidates/NNN.hirelc is the file of measurement NNN (counted from 0, as the journal does), candidates/NNN.safetensors the
training state behind it, with policy, activation sites and training record. Both are written before the journal's line.
checkpoints/ holds what only a run under way needs: sensitivities, and the fine-tunes that take long.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from hirelc.candidates import Candidate
from hirelc.compression.activations import ActivationSite
from hirelc.errors import RunError
from hirelc.measure.session import Saved, trained_json, trained_of
from hirelc.policy import Policy
from hirelc.progress import Reporter
from hirelc.store import RunDirectory
from hirelc.tensorfile import pack_tensors, unpack_tensors

CANDIDATES, CHECKPOINTS = "candidates", "checkpoints"
FINAL = "final"  # name of the candidate that was delivered


def candidate_names(index: int | str) -> tuple[str, str]:
    """Names of a candidate's compressed file and of its training state, within the run folder."""
    stem = index if isinstance(index, str) else f"{index:03d}"
    return f"{CANDIDATES}/{stem}.hirelc", f"{CANDIDATES}/{stem}.safetensors"


def save_candidate(directory: RunDirectory, index: int | str, candidate: Candidate) -> None:
    """Writes both files of a candidate, each whole or not at all.

    :param index: of the measurement, from 0, or `FINAL`
    """
    tensors, _ = unpack_tensors(candidate.state, "a candidate's state")
    record = {
        "policy": candidate.policy.to_json(),
        "sites": [asdict(site) for site in candidate.sites],
        "trained": None if candidate.trained is None else trained_json(candidate.trained),
        "trained_steps": sorted(candidate.trained_steps),
        "file_sha256": hashlib.sha256(candidate.data).hexdigest(),
    }
    file, state = candidate_names(index)
    directory.write_bytes(file, candidate.data)
    directory.write_bytes(state, pack_tensors(tensors, record))


def load_candidate(folder: str | Path, index: int | str) -> Candidate:
    """The candidate of measurement `index`, or `FINAL`, ready for `Bench.revive`.

    :raises RunError: a file of it is missing or damaged
    """
    file, state = (Path(folder) / name for name in candidate_names(index))
    try:
        data, stored = file.read_bytes(), state.read_bytes()
    except OSError as error:
        raise RunError(f"{error.filename} cannot be read ({error.strerror})") from error
    _, record = unpack_tensors(stored, state)
    if hashlib.sha256(data).hexdigest() != record["file_sha256"]:
        raise RunError(f"{file} is damaged (its checksum differs)")
    policy = Policy.from_json(record["policy"])
    known = policy.choices if record["trained"] is not None else ()  # of files that earlier versions wrote
    return Candidate(
        policy=policy,
        sites=tuple(ActivationSite(**site) for site in record["sites"]),
        data=data,
        state=stored,
        trained=None if record["trained"] is None else trained_of(record["trained"]),
        trained_steps=frozenset(record.get("trained_steps", known)),
    )


class FileCheckpoint:
    """The state of a fine-tune in one file, written whole; implements `measure.session.Checkpoint`.

    Saving takes a fiftieth of the time at most; what is not saved yet, and lost with the process, is that much work.
    """

    SHARE, LEAST, MOST = 50, 1.0, 300.0  # seconds between saves: times what one takes, and limits of it

    def __init__(self, directory: RunDirectory, name: str, say: Reporter) -> None:
        self.directory, self.name, self.say = directory, f"{CHECKPOINTS}/{name}.safetensors", say
        self._last, self._pause = time.monotonic(), self.LEAST

    def load(self) -> Saved | None:
        """What was saved; a damaged file is said and left alone: then the fine-tune begins anew."""
        return load_tensors(self.directory, self.name, self.say, "this fine-tune begins anew")

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._pause

    def save(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        begun = time.monotonic()
        self.directory.write_bytes(self.name, pack_tensors(tensors, record))
        self._last = time.monotonic()
        self._pause = min(max(self.LEAST, self.SHARE * (self._last - begun)), self.MOST)


def load_tensors(directory: RunDirectory, name: str, say: Reporter, otherwise: str) -> Saved | None:
    """A file of tensors and a record of the run; None when it is not there or damaged.

    :param otherwise: what is done without it
    """
    path = directory.path / name
    if not path.is_file():
        return None
    try:
        return unpack_tensors(path.read_bytes(), path)
    except RunError as error:
        say.warn(f"{error}: {otherwise}")
        return None


def clear_checkpoints(folder: Path) -> None:
    """A run that has ended needs them no more."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
