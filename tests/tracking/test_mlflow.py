"""MLflow's own client, store and server. What needs them is slow: importing it alone takes seconds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from hirelc.errors import RunError
from hirelc.progress import Silent
from hirelc.tracking import mlflow
from hirelc.tracking.mlflow import MLflow
from live.events import replay, whole_run

needs_mlflow = pytest.mark.skipif(find_spec("mlflow") is None, reason="pip install 'hirelc[mlflow]'")


class Telling(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_without_it_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"MLflow is not installed: pip install 'hirelc\[mlflow\]'"):
        MLflow(Silent())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """MLflow's server on loopback, with a store of its own."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "files")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "NO_PROXY": "*", "no_proxy": "*"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(800):  # a busy machine takes minutes to import it
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.5)
        else:
            pytest.fail((folder / "log").read_text()[-2000:])
        yield address, process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, 15)  # the group that it was started in: the server and its worker
        process.wait(60)


@pytest.mark.slow
@needs_mlflow
def test_a_store_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "run"
    tracker = MLflow(Telling())
    replay(tracker, folder, 7)
    tracker.end()  # as it is when a run fails
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("hirelc")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED" and run.info.run_name == "run"
    assert run.data.params["goal.ratio"] == "10" and run.data.params["search.cycles"] == "2"
    # the run goes on: in the same run, with nothing kept twice
    tracker = MLflow(Telling())
    replay(tracker, folder, len(whole_run()))
    tracker.end()
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "measured/bytes")
    assert [(metric.step, metric.value) for metric in history] == [(1, 99_000.0), (2, 98_000.0), (4, 97_000.0)]
    assert list((tmp_path / "here").iterdir()) == []  # nothing beside the run


@pytest.mark.slow
@needs_mlflow
def test_its_real_server(tmp_path: Path, server: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("NO_PROXY", "*")
    address, process = server
    say = Telling()
    tracker = MLflow(say, address)
    replay(tracker, tmp_path / "mine", 7)
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("hirelc")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "RUNNING" and run.info.run_name == "mine"
    history = client.get_metric_history(run.info.run_id, "measured/drop_points")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.2), (2, 0.9)]
    # the server dies: the run hears of it once, and goes on
    _stop(process)
    begun = time.monotonic()
    for event in whole_run()[7:]:
        tracker.event(event)
    tracker.end()
    assert len(say.warnings) == 1 and say.warnings[0].startswith("no more metrics for MLflow (")
    assert time.monotonic() - begun < 60


@pytest.mark.slow
@needs_mlflow
def test_no_server_is_one_line_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(RunError, match=r"MLflow at http://127.0.0.1:9 cannot be used \(") as caught:
        MLflow(Telling(), "http://127.0.0.1:9").begin(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    # a run that goes on is only warned
    (tmp_path / "mlflow.json").write_text('{"uri": "http://127.0.0.1:9", "run_id": "abc"}')
    say = Telling()
    (tracker,) = MLflow.of(tmp_path, say)
    replay(tracker, tmp_path, len(whole_run()))
    tracker.end()
    assert len(say.warnings) == 1 and say.warnings[0].endswith("the run goes on without")


def test_a_note_that_leads_nowhere_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "find_spec", lambda name: None)
    say = Telling()
    assert MLflow.of(tmp_path, say) == [] and say.warnings == []
    for text in ('{"uri": null, "run_id": "abc"}', "{", "[]"):
        (tmp_path / "mlflow.json").write_text(text)
        assert MLflow.of(tmp_path, say) == []
    assert len(say.warnings) == 3 and "MLflow is not installed" in say.warnings[0]
