"""Image folders, tables of text, Hugging Face data sets, arrays without labels: good ones, odd ones, and bad ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import small_tasks as small
from hirelc.batches import DatasetBatches, TensorBatches
from hirelc.data import Splits, load_data
from hirelc.errors import DataError
from hirelc.inputs import DataOptions, image_shape, read_inputs
from hirelc.sources import images as images_module
from hirelc.sources.images import decode


def part(splits: Splits, name: str) -> TensorBatches:
    found = getattr(splits, name)
    return found._batches if name == "test" else found  # type: ignore[no-any-return]


def picture(path: Path, colour: Any, size: tuple[int, int] = (10, 8), mode: str = "RGB", **save: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **save)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Thirty red and twenty blue pictures, 10 wide and 8 high; the file number is in the green channel."""
    folder = tmp_path / "photos"
    for i in range(30):
        picture(folder / "red" / f"{i:02d}.png", (200, i, 0))
    for i in range(20):
        picture(folder / "blue" / f"{i:02d}.png", (0, i, 200))
    return folder


# ---- images


def test_a_folder_for_each_class_is_split_by_the_seed_and_by_class(photos: Path) -> None:
    splits = load_data(f"imagefolder:{photos}", batch_size=8, seed=1)
    assert splits.classes == 2 and splits.notes == () and "40 train, 5 search-validation, 5 test" in splits.description
    parts = {name: part(splits, name) for name in ("train", "validation", "test")}
    for name, share in (("train", 16), ("validation", 2), ("test", 2)):  # blue comes first: 20 of 50
        assert int((parts[name].y == 0).sum()) == share
    seen = {(int(x[0, 0, 0]), int(x[1, 0, 0]), int(y)) for p in parts.values() for x, y in zip(p.x, p.y, strict=True)}
    assert seen == {(200, i, 1) for i in range(30)} | {(0, i, 0) for i in range(20)}
    assert parts["train"].x.shape == (40, 3, 8, 10) and parts["train"].augment == "shift"
    same, other = (load_data(f"imagefolder:{photos}", seed=seed) for seed in (1, 2))
    assert torch.equal(part(same, "test").x, parts["test"].x) and not torch.equal(part(other, "test").x, parts["test"].x)


def test_folders_of_splits_are_kept(photos: Path) -> None:
    for split in ("train", "val"):
        for name in ("red", "blue"):
            for i in range(4 if split == "val" else 12):
                picture(photos.parent / "split" / split / name / f"{i}.jpg", (i, 0, 0))
    splits = load_data(f"imagefolder:{photos.parent / 'split'}")
    assert (splits.train.samples, splits.validation.samples) == (22, 8)
    assert splits.test is not None and splits.test.samples == 2  # carved out of train


def test_pixels_are_normalised_for_each_channel(photos: Path) -> None:
    image, _ = next(load_data(f"imagefolder:{photos}").validation.epoch(0, training=False))
    stored = part(load_data(f"imagefolder:{photos}"), "validation").x
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(image, (stored / 255 - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1))
    own = part(load_data(f"imagefolder:{photos}", normalise="own"), "train")
    assert own.normalise is not None and own.normalise[0] == pytest.approx(float((own.x / 255).mean()), abs=1e-3)
    half, _ = next(load_data(f"imagefolder:{photos}", normalise="half").validation.epoch(0, training=False))
    torch.testing.assert_close(half, stored / 255 * 2 - 1)


def test_mixed_sizes_need_a_size_and_get_it(photos: Path) -> None:
    picture(photos / "red" / "large.png", (200, 99, 0), (40, 20))
    with pytest.raises(DataError, match=r"large\.png is 20x40.*--image-size|differ in size .*--image-size"):
        load_data(f"imagefolder:{photos}")
    splits = load_data(f"imagefolder:{photos}", image=(3, 6, 6))
    assert part(splits, "train").x.shape[1:] == (3, 6, 6)
    grey = load_data(f"imagefolder:{photos}", image=(1, 6, 6))
    assert part(grey, "train").x.shape[1:] == (1, 6, 6)


def test_an_image_covers_the_shape_and_is_cut_to_its_centre(tmp_path: Path) -> None:
    stripes = np.zeros((8, 24, 3), np.uint8)
    stripes[:, :8, 0], stripes[:, 8:16, 1], stripes[:, 16:, 2] = 255, 255, 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png", (3, 8, 8))
    assert found.shape == (3, 8, 8) and (found[1] == 255).all() and not found[0].any() and not found[2].any()


MODES: list[tuple[str, Any, tuple[int, int, int]]] = [
    ("RGB", (10, 20, 30), (10, 20, 30)),
    ("L", 77, (77, 77, 77)),
    ("1", 1, (255, 255, 255)),
    ("P", 0, (0, 0, 0)),
    ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
    ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
    ("LA", (50, 255), (50, 50, 50)),
    ("I;16", 257 * 90, (90, 90, 90)),
]


@pytest.mark.parametrize(("mode", "colour", "expected"), MODES, ids=[f"{mode}{colour}" for mode, colour, _ in MODES])
def test_every_mode_becomes_colours(tmp_path: Path, mode: str, colour: Any, expected: tuple[int, int, int]) -> None:
    picture(tmp_path / "a.png", colour, mode=mode)
    assert decode(tmp_path / "a.png", (3, 8, 10))[:, 0, 0].tolist() == list(expected)
    assert decode(tmp_path / "a.png", (1, 8, 10)).shape == (1, 8, 10)


def test_cmyk_and_the_cameras_orientation(tmp_path: Path) -> None:
    picture(tmp_path / "c.jpg", (0, 255, 255, 0), mode="CMYK", quality=95)
    red = decode(tmp_path / "c.jpg", (3, 8, 10))[:, 4, 4]
    assert red[0] > 200 and red[1] < 60
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    pixels = np.zeros((10, 20), np.uint8)
    pixels[:, :10] = 255
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    turned = decode(tmp_path / "turned.png", (1, 20, 10))[0]
    assert (turned[:9] > 200).all() and (turned[11:] < 50).all()


def break_file(path: Path, keep: int | None) -> None:
    data = path.read_bytes()
    path.write_bytes(b"no image" if keep is None else data[:keep])


@pytest.mark.parametrize("keep", [None, 0, 40, 60])
def test_a_few_unreadable_images_are_named_and_left_out(photos: Path, keep: int | None) -> None:
    for i in range(20, 160):
        picture(photos / "blue" / f"{i}.png", (0, 0, 200))
    noise = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    Image.fromarray(noise).save(photos / "blue" / "05.png")
    break_file(photos / "blue" / "05.png", keep)
    splits = load_data(f"imagefolder:{photos}")
    assert len(splits.notes) == 1 and "1 of 190 images cannot be read" in splits.notes[0] and "05.png" in splits.notes[0]
    total = splits.train.samples + splits.validation.samples + (splits.test.samples if splits.test else 0)
    assert total == 189


def test_many_unreadable_images_are_refused(photos: Path) -> None:
    break_file(photos / "blue" / "05.png", 40)
    with pytest.raises(DataError, match=r"1 of 50 images cannot be read: .*05\.png .*more than 1%"):
        load_data(f"imagefolder:{photos}")
    for path in photos.rglob("*.png"):
        break_file(path, None)
    with pytest.raises(DataError, match="none of 50 images can be read"):
        load_data(f"imagefolder:{photos}")


def test_images_beyond_memory_are_decoded_at_each_use(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = load_data(f"imagefolder:{photos}", batch_size=7)
    monkeypatch.setattr(images_module, "IN_MEMORY_BYTES", 1000)
    lazy = load_data(f"imagefolder:{photos}", batch_size=7, train_limit=11)
    assert (
        isinstance(lazy.validation, DatasetBatches) and lazy.train.samples == 11 and "decoded at each use" in lazy.description
    )
    for (x, y), (other_x, other_y) in zip(kept.validation.epoch(0, False), lazy.validation.epoch(0, False), strict=True):
        torch.testing.assert_close(x, other_x)
        assert torch.equal(y, other_y)
    with pytest.raises(DataError, match="--normalise own"):
        load_data(f"imagefolder:{photos}", normalise="own")
    with pytest.raises(DataError, match="--augment none"):
        load_data(f"imagefolder:{photos}", augment="shift")


def one_class(folder: Path) -> None:
    (folder / "blue").rename(folder.parent / "elsewhere")


def empty_class(folder: Path) -> None:
    for path in (folder / "blue").iterdir():
        path.unlink()


def unreadable_class(folder: Path) -> None:
    """Few enough to be left out, but all that there is of a class."""
    for path in (folder / "blue").iterdir():
        path.unlink()
    (folder / "blue" / "a.png").write_bytes(b"no image")
    for number in range(120):
        picture(folder / "red" / f"more-{number}.png", (1, 2, 3))


def missing_from_validation(folder: Path) -> None:
    folder.rename(folder.parent / "train")
    (folder.parent / "photos").mkdir()
    (folder.parent / "train").rename(folder / "train")
    picture(folder / "val" / "red" / "a.png", (1, 2, 3))


def unknown_in_validation(folder: Path) -> None:
    missing_from_validation(folder)
    picture(folder / "val" / "green" / "a.png", (1, 2, 3))


def nothing(folder: Path) -> None:
    for path in folder.iterdir():
        path.rename(folder.parent / path.name)


FOLDER_FAULTS = [
    (one_class, "1 class folders: .*at least two"),
    (nothing, "0 class folders"),
    (missing_from_validation, "the class 'blue' is missing from the validation split"),
    (unknown_in_validation, "the class 'green' is none of the 2 known"),
    (empty_class, "'blue' has no images"),
    (unreadable_class, "train split: no image of the class 'blue' can be read"),
]


@pytest.mark.parametrize(("damage", "message"), FOLDER_FAULTS, ids=[damage.__name__ for damage, _ in FOLDER_FAULTS])
def test_folders_that_will_not_do(photos: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(photos)
    with pytest.raises(DataError, match=message) as caught:
        load_data(f"imagefolder:{photos}")
    assert "\n" not in str(caught.value)


def test_images_without_classes(photos: Path) -> None:
    splits = load_data(f"imagefolder:{photos}", targets="none")
    _, y = next(splits.train.epoch(0, training=False))
    assert splits.train.samples == 40 and y.shape[1] == 0
    with pytest.raises(DataError, match="no such folder"):
        load_data("imagefolder:no/such/place")
    with pytest.raises(DataError, match="the task wants values"):
        load_data(f"imagefolder:{photos}", targets="values")


# ---- tables of text


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small.save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def table(folder: Path, rows: list[tuple[str, str]], **wishes: Any) -> Splits:
    path = small.write_csv(folder / "t.csv", rows)
    return load_data(f"csv:{path}:text,label", **wishes)


def test_texts_become_padded_ids_and_names_become_numbers(tmp_path: Path, tokenizer: str) -> None:
    splits = table(tmp_path, small.reviews(60), tokenizer=tokenizer, batch_size=8)
    inputs, y = next(splits.train.epoch(0, training=False))
    assert isinstance(inputs, dict) and {"input_ids", "attention_mask"} <= set(inputs)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert ids.shape == mask.shape == (8, 9) and bool((ids[mask == 0] == 0).all()) and bool((ids[:, 0] == 2).all())
    good = torch.tensor([small.WORDS.index(word) for word in small.GOOD])
    assert torch.equal(torch.isin(ids, good).any(1).long(), y)  # neg is 0, pos is 1
    assert (splits.train.samples, splits.validation.samples, splits.classes) == (48, 6, 2)
    assert torch.bincount(part(splits, "validation").y).tolist() == [3, 3]
    named = table(tmp_path, small.reviews(60), tokenizer=tokenizer, classes=("pos", "neutral", "neg"))
    assert named.classes == 3 and set(part(named, "train").y.tolist()) == {0, 2}


def test_numbers_as_labels_and_as_values(tmp_path: Path, tokenizer: str) -> None:
    rows = [(text, str(i % 3)) for i, (text, _) in enumerate(small.reviews(60))]
    splits = table(tmp_path, rows, tokenizer=tokenizer)
    assert splits.classes == 3 and part(splits, "train").y.dtype == torch.int64
    rows = [(text, f"{i / 7}") for i, (text, _) in enumerate(small.reviews(60))]
    values = part(table(tmp_path, rows, tokenizer=tokenizer, targets="values"), "train").y
    assert values.dtype == torch.float32 and len(values.unique()) == 48  # type: ignore[no-untyped-call]
    with pytest.raises(DataError, match="regression needs numbers"):
        table(tmp_path, small.reviews(60), tokenizer=tokenizer, targets="values")


def test_a_language_model_is_asked_for_its_own_tokens_but_not_for_padding(tmp_path: Path, tokenizer: str) -> None:
    path = small.write_csv(tmp_path / "t.csv", small.reviews(60))
    splits = load_data(f"csv:{path}:text", tokenizer=tokenizer, targets="tokens")
    inputs, y = next(splits.train.epoch(0, training=False))
    assert isinstance(inputs, dict)
    real = inputs["attention_mask"] == 1
    assert torch.equal(y[real], inputs["input_ids"][real]) and bool((y[~real] == -100).all()) and bool((~real).any())
    assert splits.classes == len(small.WORDS)


def test_long_texts_are_cut_and_that_is_said(tmp_path: Path, tokenizer: str) -> None:
    splits = table(tmp_path, small.reviews(60), tokenizer=tokenizer, max_tokens=5)
    assert part(splits, "train").x["input_ids"].shape[1] == 5  # type: ignore[index, call-overload]
    assert "60 of 60 texts" in splits.notes[0]


def test_a_few_rows_without_text_are_left_out(tmp_path: Path, tokenizer: str) -> None:
    rows = small.reviews(200)
    rows[3] = ("  ", "pos")
    splits = table(tmp_path, rows, tokenizer=tokenizer)
    assert "1 of 200 rows have no text, the first is line 5" in splits.notes[0]
    rows[10] = rows[11] = rows[12] = ("", "neg")
    with pytest.raises(DataError, match="more than 1%"):
        table(tmp_path, rows, tokenizer=tokenizer)


TABLES: list[tuple[str, bytes, str, str]] = [
    ("no such file", b"", "nowhere.csv:text,label", "cannot be read"),
    ("no columns named", b"text,label\na,b\n", "t.csv", "give csv:FILE:text,label"),
    ("three columns", b"text,label\na,b\n", "t.csv:a,b,c", "give csv:FILE:text,label"),
    ("unknown column", b"text,label\na,b\n", "t.csv:text,stars", r"no column 'stars' \(there is: text, label\)"),
    ("empty file", b"", "t.csv:text,label", r"no column 'text' \(there is: none\)"),
    ("header only", b"text,label\n", "t.csv:text,label", "the table is empty"),
    ("latin-1", "text,label\nsch\xf6n,a\n".encode("latin-1"), "t.csv:text,label", "UTF-8"),
    ("label missing", b"text,label\na,x\nb,\n", "t.csv:text,label", "line 3: the label is missing"),
    ("cell missing", b"text,label\na\n", "t.csv:text,label", "line 2: the label is missing"),
    ("negative label", b"text,label\n" + b"a,-1\nb,0\n" * 9, "t.csv:text,label", "negative"),
    ("too few", b"text,label\na,x\n", "t.csv:text,label", "too few"),
]


@pytest.mark.parametrize(("content", "rest", "message"), [case[1:] for case in TABLES], ids=[case[0] for case in TABLES])
def test_tables_that_will_not_do(tmp_path: Path, tokenizer: str, content: bytes, rest: str, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_data(f"csv:{tmp_path / rest}", tokenizer=tokenizer)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_must_be_given_and_be_there(tmp_path: Path, tokenizer: str) -> None:
    with pytest.raises(DataError, match="give --tokenizer DIR"):
        table(tmp_path, small.reviews(30))
    with pytest.raises(DataError, match="no tokenizer can be read there"):
        table(tmp_path, small.reviews(30), tokenizer=str(tmp_path))
    with pytest.raises(DataError, match="'pos' is none of the network's classes"):
        table(tmp_path, small.reviews(30), tokenizer=tokenizer, classes=("neg", "good"))
    with pytest.raises(DataError, match="the task needs labels"):
        path = small.write_csv(tmp_path / "t.csv", small.reviews(30))
        load_data(f"csv:{path}:text", tokenizer=tokenizer)


# ---- data sets of Hugging Face


def saved(folder: Path, columns: dict[str, Any], features: Any = None, splits: tuple[str, ...] = ()) -> str:
    import datasets

    found = datasets.Dataset.from_dict(columns, features=features)
    parts = datasets.DatasetDict(dict.fromkeys(splits, found)) if splits else found
    parts.save_to_disk(str(folder / "set"))
    return f"hf-dataset:{folder / 'set'}"


def test_a_saved_data_set_of_arrays_and_its_splits(tmp_path: Path) -> None:
    columns = {"x": np.arange(60.0).reshape(30, 2).tolist(), "label": [i % 3 for i in range(30)]}
    splits = load_data(saved(tmp_path, columns, splits=("train", "dev", "test")))
    assert (splits.train.samples, splits.validation.samples, splits.classes) == (30, 30, 3)
    x = part(splits, "train").x
    assert isinstance(x, Tensor) and x.dtype == torch.float32 and x.shape == (30, 2) and float(x[29, 1]) == 59
    alone = load_data(saved(tmp_path / "one", columns))
    assert (alone.train.samples, alone.validation.samples) == (24, 3)


def test_saved_images_and_texts(tmp_path: Path, tokenizer: str) -> None:
    import datasets

    names = datasets.ClassLabel(names=["dark", "light"])
    pictures = [Image.new("RGB", (6, 6), (200 * (i % 2),) * 3) for i in range(40)]
    features = datasets.Features({"image": datasets.Image(), "label": names})
    splits = load_data(saved(tmp_path / "a", {"image": pictures, "label": [i % 2 for i in range(40)]}, features))
    train = part(splits, "train")
    assert isinstance(train.x, Tensor) and train.x.shape == (32, 3, 6, 6) and splits.classes == 2
    assert torch.equal((train.x[:, 0, 0, 0] > 100).long(), train.y)
    rows = small.reviews(40)
    columns = {"review": [text for text, _ in rows], "stars": [int(label == "pos") for _, label in rows]}
    texts = load_data(saved(tmp_path / "b", columns) + ":review,stars", tokenizer=tokenizer)
    assert texts.classes == 2 and isinstance(part(texts, "train").x, dict)
    spoken = load_data(saved(tmp_path / "c", columns) + ":review", tokenizer=tokenizer, targets="tokens")
    assert part(spoken, "train").y.shape == part(spoken, "train").x["input_ids"].shape  # type: ignore[index, call-overload]


def test_saved_sets_with_holes_or_nothing_in_them(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    pictures = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(9)]
    for spec, message in (
        (saved(tmp_path / "hole", {"image": [*pictures, None], "label": [0, 1] * 5}, features), "row 9 has no image"),
        (saved(tmp_path / "none", {"image": [], "label": []}, features), "cannot be loaded: it has no rows"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            load_data(spec)
        assert "\n" not in str(caught.value)


def test_saved_sets_that_will_not_do(tmp_path: Path) -> None:
    rest = saved(tmp_path / "a", {"this": [[1.0]] * 30, "that": [0, 1, 2] * 10})
    for spec, message in (
        (rest, "which column is the input"),
        (rest + ":this", "which column is the label"),
        (rest + ":this,stars", "name the columns"),
        ("hf-dataset:", "give hf-dataset:NAME_OR_DIR"),
        (f"hf-dataset:{tmp_path / 'nowhere'}", "no such folder"),
        (f"hf-dataset:{tmp_path}", "cannot be loaded"),
        (saved(tmp_path / "b", {"x": [[1.0], [2.0, 3.0]] * 9, "y": [0, 1] * 9}), "rows differ in shape"),
        (saved(tmp_path / "c", {"x": [[1.0]] * 9, "y": [0] * 9}, splits=("validation",)), "there is no split train"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            load_data(spec)
        assert "\n" not in str(caught.value)


# ---- arrays for other tasks


def test_arrays_for_every_kind_of_target(tmp_path: Path) -> None:
    x, path = np.zeros((40, 1, 4, 4), np.float32), tmp_path / "d.npz"
    np.savez(path, x=x)
    assert part(load_data(str(path), targets="none"), "train").y.shape == (32, 0)
    with pytest.raises(DataError, match=r"array y is missing.*distill needs no y"):
        load_data(str(path))
    np.savez(path, x=x, y=np.linspace(0, 1, 40))
    assert part(load_data(str(path), targets="values"), "train").y.dtype == torch.float32
    np.savez(path, x=x, y=np.full(40, np.nan))
    with pytest.raises(DataError, match="NaN or infinite targets"):
        load_data(str(path), targets="values")
    maps = np.arange(40 * 16).reshape(40, 4, 4) % 3
    maps[:, 0] = -100
    np.savez(path, x=x, y=maps)
    splits = load_data(str(path), targets="positions")
    assert part(splits, "train").y.shape == (32, 4, 4) and splits.classes == 3
    np.savez(path, x=x, y=np.full((40, 4, 4), -100))
    with pytest.raises(DataError, match="nothing is asked"):
        load_data(str(path), targets="positions")
    np.savez(path, x=np.arange(200).reshape(40, 5) % 7)
    tokens = part(load_data(str(path), targets="tokens"), "train")
    assert isinstance(tokens.x, Tensor) and torch.equal(tokens.x, tokens.y)


# ---- wishes of the command line


@pytest.mark.parametrize(
    ("text", "shape"), [("224", (3, 224, 224)), ("224x320", (3, 224, 320)), ("1x28x28", (1, 28, 28)), ("1,8,9", (1, 8, 9))]
)
def test_image_sizes(text: str, shape: tuple[int, int, int]) -> None:
    assert image_shape(text) == shape


@pytest.mark.parametrize("text", ["", "x", "0", "-3", "2x3x4x5", "2x8x8", "8.5"])
def test_image_sizes_that_are_none(text: str) -> None:
    with pytest.raises(DataError, match="--image-size"):
        image_shape(text)


def test_options_reach_the_source(photos: Path) -> None:
    options = DataOptions(image_size="1x4x4", normalise="half")
    task, splits = read_inputs("mypkg:make", f"imagefolder:{photos}", None, options, batch_size=9)
    assert task.targets == "classes" and part(splits, "train").x.shape == (40, 1, 4, 4)  # type: ignore[union-attr]
    assert part(splits, "train").normalise == ((0.5,), (0.5,)) and part(splits, "train").batch_size == 9
    assert options.flags() == ["--image-size", "1x4x4", "--normalise", "half"]
    with pytest.raises(DataError, match="--normalise loud"):
        read_inputs("mypkg:make", f"imagefolder:{photos}", None, DataOptions(normalise="loud"))
