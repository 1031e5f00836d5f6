"""A run of MLflow for a run of hirelc: in a SQLite store in the run's own folder, or wherever a URI leads."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hirelc.errors import RunError
from hirelc.progress import Reporter
from hirelc.store import atomic_write
from hirelc.tracking.scalars import Scalars, seconds_of
from hirelc.version import __version__

STORE, NOTE, EXPERIMENT = "mlflow.db", "mlflow.json", "hirelc"
MISSING = "MLflow is not installed: pip install 'hirelc[mlflow]'"
ENDED = {"result": "FINISHED", "interrupted": "KILLED"}
BATCH = 1000  # metrics that one request may carry
# Unless the user says otherwise: nobody is told that MLflow is used, and a server that does not answer holds nothing up.
SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MLflow:
    """Metrics as they come, settings as parameters. A run that goes on goes on in MLflow too: what it has already is the
    same there, to the millisecond, and is not kept twice.

    :param say: told when the store takes no more; the run goes on
    :param uri: of MLflow's tracking; None keeps a store in the run's folder
    :raises RunError: MLflow is not installed
    """

    def __init__(self, say: Reporter, uri: str | None = None) -> None:
        if find_spec("mlflow") is None:
            raise RunError(MISSING)
        self._say, self._uri = say, uri
        self._scalars = Scalars()
        self._client: Any = None
        self._run = ""
        self._ended = "FAILED"

    def begin(self, folder: Path) -> None:
        """
        :raises RunError: the store cannot be opened: found before anything was measured. A run that goes on is only warned
        """
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        with self._say.stage("opening MLflow"):
            import mlflow

            # moving the tables of a new store into place is told in sixty lines
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
            logging.getLogger("alembic").setLevel(logging.WARNING)
            self._scalars, self._ended, self._folder = Scalars(), "FAILED", folder
            uri = self._uri or f"sqlite:///{folder.resolve() / STORE}"
            try:
                self._client = mlflow.MlflowClient(uri)
                self._run = self._find_run() or self._new_run()
            except (mlflow.MlflowException, OSError) as error:
                self._client = None
                message = f"MLflow at {self._uri or uri} cannot be used ({_short(error)})"
                if not (folder / NOTE).is_file():
                    raise RunError(f"{message}: check the address") from error
                self._say.warn(f"{message}: the run goes on without")

    def _find_run(self) -> str | None:
        """Of a run that goes on, where it was begun in the same store."""
        note = self._folder / NOTE
        known = json.loads(note.read_text()) if note.is_file() else {}
        if self._uri != known.get("uri", ""):
            return None
        self._client.update_run(known["run_id"], status="RUNNING")
        return str(known["run_id"])

    def _new_run(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            experiment = found.experiment_id
        elif self._uri is None:  # or files would go to a folder where the command was typed
            experiment = self._client.create_experiment(EXPERIMENT, (self._folder.resolve() / "mlflow").as_uri())
        else:
            experiment = self._client.create_experiment(EXPERIMENT)
        tags = {"hirelc.version": __version__}
        run = str(self._client.create_run(experiment, run_name=self._folder.resolve().name, tags=tags).info.run_id)
        atomic_write(self._folder / NOTE, (json.dumps({"uri": self._uri, "run_id": run}) + "\n").encode())
        return run

    @classmethod
    def of(cls, folder: Path, say: Reporter) -> list[MLflow]:
        """That of a run that goes on: one or none."""
        note = folder / NOTE
        if not note.is_file():
            return []
        try:
            return [cls(say, json.loads(note.read_text())["uri"])]
        except (RunError, ValueError, KeyError, TypeError) as error:
            say.warn(f"{note} leads to no MLflow ({_short(error)}): the run goes on without")
            return []

    def event(self, record: Mapping[str, Any]) -> None:
        found = self._scalars.of(record)
        self._ended = ENDED.get(record["event"], "FAILED")
        if self._client is None:
            return
        if record["event"] == "start":
            self._guarded(lambda: self._settings(record))
        if found:
            self._guarded(lambda: self._log(record, found))

    def end(self) -> None:
        if self._client is not None:
            self._guarded(lambda: self._client.set_terminated(self._run, self._ended))
        self._client = None

    def _settings(self, record: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        config = self._folder / "config.json"
        values = _flat({"goal": record.get("goal") or {}, **(json.loads(config.read_text()) if config.is_file() else {})})
        self._client.log_batch(self._run, params=[Param(name, str(value)) for name, value in values.items()])

    def _log(self, record: Mapping[str, Any], found: Sequence[Any]) -> None:
        from mlflow.entities import Metric

        stamp = round(1000 * seconds_of(record))
        metrics = [Metric(scalar.name, scalar.value, stamp, scalar.step) for scalar in found]
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(self._run, metrics=metrics[start : start + BATCH])

    def _guarded(self, send: Callable[[], None]) -> None:
        from mlflow import MlflowException

        try:
            send()
        except (MlflowException, OSError) as error:
            self._client = None
            self._say.warn(f"no more metrics for MLflow ({_short(error)}); the journal has all of them")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _short(error: Exception) -> str:
    """The first line of what a library says, in bounds."""
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."
