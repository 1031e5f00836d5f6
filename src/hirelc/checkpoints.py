"""What a run goes on from: measured candidates, kept in its folder.

candidates/NNN.hirelc is the file of measurement NNN (counted from 0, as the journal does), candidates/NNN.safetensors the
training state behind it, with policy, activation sites and training record. Both are written before the journal's line.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

from hirelc.candidates import Candidate
from hirelc.compression.activations import ActivationSite
from hirelc.errors import RunError
from hirelc.measure.session import trained_json, trained_of
from hirelc.policy import Policy
from hirelc.store import RunDirectory
from hirelc.tensorfile import pack_tensors, unpack_tensors

CANDIDATES = "candidates"


def candidate_names(index: int) -> tuple[str, str]:
    """Names of a candidate's compressed file and of its training state, within the run folder."""
    return f"{CANDIDATES}/{index:03d}.hirelc", f"{CANDIDATES}/{index:03d}.safetensors"


def save_candidate(directory: RunDirectory, index: int, candidate: Candidate) -> None:
    """Writes both files of a candidate, each whole or not at all.

    :param index: of the measurement, from 0
    """
    tensors, _ = unpack_tensors(candidate.state, "a candidate's state")
    record = {
        "policy": candidate.policy.to_json(),
        "sites": [asdict(site) for site in candidate.sites],
        "trained": None if candidate.trained is None else trained_json(candidate.trained),
        "file_sha256": hashlib.sha256(candidate.data).hexdigest(),
    }
    file, state = candidate_names(index)
    directory.write_bytes(file, candidate.data)
    directory.write_bytes(state, pack_tensors(tensors, record))


def load_candidate(folder: str | Path, index: int) -> Candidate:
    """The candidate of measurement `index`, ready for `Bench.revive`.

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
    return Candidate(
        policy=Policy.from_json(record["policy"]),
        sites=tuple(ActivationSite(**site) for site in record["sites"]),
        data=data,
        state=stored,
        trained=None if record["trained"] is None else trained_of(record["trained"]),
    )
