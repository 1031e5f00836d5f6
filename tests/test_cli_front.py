"""`hirelc front` and `hirelc pick` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

from hirelc.artifact.inspect import open_file
from test_cli_resume import COMPRESS, inside, says  # noqa: F401  (a fixture that every test here uses)


def test_more_sizes_and_another_goal_from_one_run() -> None:
    made = says(
        *COMPRESS, "--out", "runs/one", "--agent-steps", "16", "--trials", "1", "--batch-size", "32", "--no-control", "-q"
    )
    assert made.exit_code == 0, made.stderr
    shown = says("front", "runs/one", "--no-measure")
    assert shown.exit_code == 0 and "points lost" in shown.stdout and "runs/one/candidates/final.hirelc" in shown.stdout
    before = len(json.loads(says("front", "runs/one", "--no-measure", "--json").stdout))
    more = says("front", "runs/one", "--points", "4", "--images", "64", "--json", "-q")
    assert more.exit_code == 0, more.stderr
    points = json.loads(more.stdout)
    assert len(points) > before and {point["origin"] for point in points} >= {"front", "final"}
    picked = says("pick", "runs/one", "--max-drop", "60", "--images", "64", "--out", "runs/two", "-q")
    assert picked.exit_code == 0, picked.stderr
    assert "hirelc evaluate runs/two/model.hirelc --model resume_nets:make_net --data data.npz" in picked.stdout
    assert open_file("runs/two/model.hirelc")
    again = says("resume", "runs/two", "-q")  # a pick is a run like any other
    assert again.exit_code == 0 and picked.stdout == again.stdout


def test_what_cannot_be_done_is_one_line() -> None:
    Path("runs/empty").mkdir(parents=True)
    for command in (("front", "runs/empty"), ("pick", "runs/empty", "--ratio", "3", "--out", "runs/new")):
        said = says(*command)
        assert said.exit_code == 2 and len(said.stderr.strip().splitlines()) == 1 and "runs/empty" in said.stderr
    same = says("pick", "runs/empty", "--ratio", "3", "--out", "runs/empty")
    assert same.exit_code == 2 and "choose another folder" in same.stderr
