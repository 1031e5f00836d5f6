"""Kills a small run at random moments with SIGKILL, resumes it, and compares its end with that of a run left alone.

    python benchmarks/faults.py [--kills 25] [--seed 0]

Every process is a fork of this one, so that no time goes into imports. A run is killed again and again, at a random
moment of a whole run's time after it started or was resumed, until it comes to its end; then the next run begins. Last, a
disk of a few MB fills up in the middle of a run (tmpfs where mounting is allowed, else a limit on the size of files).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import hirelc

HERE = Path(__file__).parent
ROWS = HERE / "results-faults.jsonl"
GOAL = hirelc.Goal(ratio=3.0)
CONFIG = hirelc.Config(
    fisher_samples=32,
    calibration_samples=32,
    search=hirelc.SearchConfig(cycles=2, trials=1, low_level_steps=8, high_level_steps=8, surrogate_min_samples=2),
    train=hirelc.TrainConfig(images=1200, batch_size=32, precision="fp32", evaluations=2, rate_term=False),
)


class Net(nn.Module):
    """Two residual blocks."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.stem = nn.Linear(6, dim)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.BatchNorm1d(2 * dim), nn.ReLU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))
            for _ in range(2)
        )
        self.head = nn.Linear(dim, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


def samples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    centres = 1.5 * torch.randn(4, 6, generator=torch.Generator().manual_seed(42))
    y = torch.arange(count) % 4
    return centres[y] + torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)), y


def trained() -> Net:
    torch.manual_seed(0)
    network, (x, y) = Net(), samples(256, 0)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


def work(network: Net, folder: Path) -> None:
    """Begins the run, or goes on with it."""
    torch.set_num_threads(1)
    data = {"train": samples(256, 0), "val": samples(96, 1), "test": samples(96, 2), "reporter": Quiet()}
    if (folder / "journal.jsonl").is_file() and b"\n" in (folder / "journal.jsonl").read_bytes():
        hirelc.resume(folder, network, **data)
    else:
        hirelc.compress(network, goal=GOAL, out=folder, config=CONFIG, **data)


class Quiet:
    """Says nothing."""

    def stage(self, title: str, total: float | None = None) -> Quiet:
        return self

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, n: float = 1) -> None:
        pass

    update = line = detail = warn = lambda self, text: None


def forked(job: Callable[[], None], note: Path | None = None) -> int:
    """Starts a process; it ends with status 2 and a note where hirelc raises one of its errors."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        job()
        status = 0
    except hirelc.HirelcError as error:
        if note is not None:
            note.write_text(str(error))
        status = 2
    finally:
        os._exit(status)


def ended(process: int, seconds: float | None) -> int | None:
    """Its exit status; None when it had to be killed after so long."""
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if until is not None and time.monotonic() >= until:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.002)


def end_of(folder: Path) -> tuple[object, bytes]:
    """Policy and file."""
    return json.loads((folder / "result.json").read_text())["policy"], (folder / "model.hirelc").read_bytes()


def position(folder: Path) -> str:
    """The last event before a kill."""
    lines = (folder / "journal.jsonl").read_bytes().split(b"\n")[:-1] if (folder / "journal.jsonl").is_file() else []
    return json.loads(lines[-1])["event"] if lines else "nothing yet"


def kills(network: Net, place: Path, count: int, seconds: float, seed: int) -> tuple[list[str], list[Path]]:
    """Kills until `count` is reached; where each struck, and the folders of the runs, all of them ended."""
    dice, struck, runs = random.Random(seed), [], []
    while len(struck) < count:
        folder = place / f"run-{len(runs)}"
        runs.append(folder)
        while True:
            limit = dice.uniform(0.02, 0.9) * seconds if len(struck) < count else None
            status = ended(forked(lambda folder=folder: work(network, folder)), limit)
            if status == 0:
                break
            if status is not None:
                raise SystemExit(f"{folder}: the process ended with status {status}")
            struck.append(position(folder))
            print(f"kill {len(struck)}: after {struck[-1]!r} of {folder.name}", flush=True)
    return struck, runs


def full_disk(network: Net, place: Path, size_kib: int) -> tuple[str, str]:
    """Runs on a disk that fills up, then with room again; how the disk was made, and the error."""
    disk, note = place / "disk", place / "note"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    tmpfs = mounted.returncode == 0
    try:
        status = ended(forked(lambda: limited(network, disk / "run", None if tmpfs else 6 * 1024), note), None)
        if status != 2:
            raise SystemExit(f"a full disk ended with status {status}, not with an error")
        if tmpfs:
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        if ended(forked(lambda: work(network, disk / "run"), note), None) != 0:
            raise SystemExit("with room again the run did not come to its end")
        shutil.copytree(disk / "run", place / "after-full-disk")
    finally:
        if tmpfs:
            subprocess.run(["umount", str(disk)], check=True)
    return "tmpfs" if tmpfs else "limit on file sizes", note.read_text()


def limited(network: Net, folder: Path, file_bytes: int | None) -> None:
    if file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    work(network, folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk-kib", type=int, default=60)
    parser.add_argument("--note", action="store_true", help=f"add the row to {ROWS.name}")
    given = parser.parse_args()
    torch.set_num_threads(1)
    network = trained()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        work(network, place / "first")  # imports what the forks then have
        begun = time.monotonic()
        if ended(forked(lambda: work(network, place / "whole")), None) != 0:
            raise SystemExit("the run that is left alone fails")
        seconds = time.monotonic() - begun
        print(f"a run takes {seconds:.1f} s", flush=True)
        whole = end_of(place / "whole")
        struck, runs = kills(network, place, given.kills, seconds, given.seed)
        same = [end_of(folder) == whole for folder in runs]
        disk, error = full_disk(network, place, given.disk_kib)
        after = end_of(place / "after-full-disk") == whole
    row = {
        "kills": len(struck),
        "struck": {event: struck.count(event) for event in dict.fromkeys(struck)},
        "runs": len(runs),
        "same": sum(same),
        "disk": disk,
        "error": error.replace(name, "..."),
        "same_after_full_disk": after,
        "seconds": round(seconds, 1),
        "machine": f"{platform.machine()}, torch {torch.__version__}, 1 thread",
    }
    print(f"{row['kills']} kills in {row['runs']} runs; {row['same']} of {row['runs']} ends are the same to the byte")
    print(f"full disk ({disk}): {row['error']}\nthe same end after making room: {after}")
    if given.note:
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    if not (all(same) and after):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
