from __future__ import annotations

import json
from typing import Any

import pytest

from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.errors import RunError


def test_settings_survive_json() -> None:
    for config in (Config(), Config(seed=7, blocks="layer.*", search=SearchConfig(cycles=2), train=TrainConfig(images=99))):
        assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("where", [None, "search", "train"])
def test_unknown_settings_are_refused(where: str | None) -> None:
    values = Config().to_json()
    (values[where] if where else values)["colour"] = "red"
    with pytest.raises(RunError, match="has no setting 'colour'"):
        Config.from_json(values)


def test_settings_that_are_gone_are_passed_over() -> None:
    values = Config().to_json()
    values["train"]["patience"] = 4
    assert Config.from_json(values) == Config()


def test_the_version_is_checked() -> None:
    for version in (None, 99):
        with pytest.raises(RunError, match="version"):
            Config.from_json({**Config().to_json(), "version": version})


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (SearchConfig, {"cycles": 0}),
        (SearchConfig, {"levels": 1}),
        (SearchConfig, {"min_keep": 0}),
        (SearchConfig, {"min_bits": 5, "max_bits": 4}),
        (SearchConfig, {"max_bits": 16}),
        (SearchConfig, {"strategy": "luck"}),
        (TrainConfig, {"images": 0}),
        (TrainConfig, {"search_share": 1.0}),
        (TrainConfig, {"distill_weight": 1.5}),
        (TrainConfig, {"precision": "fp8"}),
        (Config, {"frame_bits": 16}),
        (Config, {"fisher_samples": 0}),
    ],
)
def test_settings_that_make_no_sense(kind: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(RunError):
        kind(**fields)
