"""Files of this version, byte for byte. What changes here changes the format: then VERSION has to change, too."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from golden_contents import GOLDEN
from make import HERE, recorded

from hirelc.artifact.container import VERSION, read, write

BUMP = f"""{{}}: the bytes of format {VERSION} must not change. If this is wanted: raise VERSION in artifact/container.py,
say in docs/format.md what changed, and write new files with  python tests/golden/make.py"""
HEADER = 40


def sections(data: bytes) -> dict[str, object]:
    """Header but for lengths that follow from deflating, which zlib builds do each in their own way; then all else."""
    manifest, raw = (int.from_bytes(data[at : at + 4], "little") for at in (12, 16))
    fields = json.loads(zlib.decompress(data[HEADER : HEADER + manifest]))
    fields.pop("writer")  # names the release, not the format
    return {
        "start": data[:12],
        "lengths": data[16:24],
        "manifest": json.dumps(fields, separators=(",", ":")),
        "raw": data[HEADER + manifest : HEADER + manifest + raw],
        "words": data[HEADER + manifest + raw :],
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_the_same_contents_give_the_same_bytes(name: str) -> None:
    old, new = sections((HERE / f"{name}.hirelc").read_bytes()), sections(write(GOLDEN[name]()))
    for part, content in old.items():
        assert new[part] == content, BUMP.format(f"{name}, {part}")


@pytest.mark.parametrize("name", GOLDEN)
def test_reading_gives_the_recorded_values(name: str) -> None:
    found = json.loads(json.dumps(recorded(read(HERE / f"{name}.hirelc"))))
    assert found == json.loads((HERE / f"{name}.json").read_text()), BUMP.format(name)


@pytest.mark.parametrize("path", sorted((HERE / "format-2").glob("*.hirelc")), ids=lambda p: p.stem)
def test_files_of_format_2_are_still_read(path: Path) -> None:
    found = json.loads(json.dumps(recorded(read(path))))
    assert found == json.loads((HERE / f"{path.stem}.json").read_text())


def test_every_golden_file_is_small_and_made() -> None:
    files = {path.stem: path.stat().st_size for path in HERE.glob("*.hirelc")}
    assert set(files) == set(GOLDEN)
    assert max(files.values()) < 2048


@pytest.mark.parametrize("name", GOLDEN)
def test_the_manifest_is_written_as_it_always_was(name: str) -> None:
    """Keys in their order and no space: the text inside the stream, not only what it means."""
    data = (HERE / f"{name}.hirelc").read_bytes()
    text = zlib.decompress(data[HEADER : HEADER + int.from_bytes(data[12:16], "little")])
    ours = write(GOLDEN[name]())
    again = zlib.decompress(ours[HEADER : HEADER + int.from_bytes(ours[12:16], "little")])
    assert again.split(b",", 1)[1] == text.split(b",", 1)[1], BUMP.format(name)  # after "writer"
