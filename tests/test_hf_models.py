"""Networks of transformers from local folders: their class, their weights, and what their files say about data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import hirelc
import small_tasks as small
from hirelc.cli import app
from hirelc.errors import NetworkError
from hirelc.hf_models import data_wishes, hf_network, usual_task
from hirelc.models import find_factory, load_network

SMALL = (
    "--images",
    "600",
    "--cycles",
    "1",
    "--agent-steps",
    "8",
    "--batch-size",
    "16",
    "--strategy",
    "uniform",
    "--no-control",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bert/ (classifier with a tokenizer), encoder/ (no head), vit/ (with a preprocessor), llama/."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    root = tmp_path_factory.mktemp("hf")
    bert = small.tiny_bert()
    bert.config.id2label = {0: "neg", 1: "pos"}
    bert.save_pretrained(root / "bert")
    small.save_tokenizer(root / "bert")
    small.tiny_encoder(pooling=True).save_pretrained(root / "encoder")
    small.tiny_llama().save_pretrained(root / "llama")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=16, patch_size=8
    )
    ViTForImageClassification(config).save_pretrained(root / "vit")
    ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.4] * 3, image_std=[0.2] * 3).save_pretrained(root / "vit")
    return root


def changed(folders: Path, tmp_path: Path, name: str = "bert", **settings: Any) -> Path:
    """A copy whose config.json says something else (None leaves a word out)."""
    copy = tmp_path / name
    shutil.copytree(folders / name, copy)
    config = json.loads((copy / "config.json").read_text()) | settings
    (copy / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return copy


@pytest.mark.parametrize(
    ("name", "kind", "task"),
    [
        ("bert", "BertForSequenceClassification", "text-classification"),
        ("encoder", "BertModel", "distill"),
        ("vit", "ViTForImageClassification", "image-classification"),
        ("llama", "LlamaForCausalLM", "language-model"),
    ],
)
def test_a_folder_becomes_its_own_class_with_its_own_weights(folders: Path, name: str, kind: str, task: str) -> None:
    network = load_network(f"hf:{folders / name}")
    assert type(network).__name__ == kind and not network.training and usual_task(str(folders / name)) == task
    expected, state = getattr(transformers, kind).from_pretrained(folders / name).state_dict(), network.state_dict()
    assert set(expected) == set(state) and all(torch.equal(state[key], tensor) for key, tensor in expected.items())
    assert type(load_network(f"hf:{folders / name}", task=task)).__name__ == kind
    factory = find_factory(f"hf:{folders / name}", seed=1)
    assert type(factory()).__name__ == kind and factory() is not factory()
    differs = [
        key for key, tensor in factory().state_dict().items() if tensor.dim() > 1 and not torch.equal(tensor, state[key])
    ]
    assert differs, "the factory reads the configuration alone"


def test_without_a_name_the_class_follows_from_the_task(folders: Path, tmp_path: Path) -> None:
    copy = changed(folders, tmp_path, architectures=None)
    assert type(hf_network(str(copy), "text-classification")).__name__ == "BertForSequenceClassification"
    assert type(hf_network(str(copy), "distill")).__name__ == "BertModel"
    assert type(hf_network(str(copy))).__name__ == "BertModel"


def test_the_networks_own_files_say_how_its_data_look(folders: Path) -> None:
    bert, vit = data_wishes(str(folders / "bert")), data_wishes(str(folders / "vit"))
    assert bert == {"tokenizer": str(folders / "bert"), "max_tokens": 32, "classes": ("neg", "pos")}
    assert vit == {"image": (3, 16, 16), "normalise": ((0.4, 0.4, 0.4), (0.2, 0.2, 0.2))}


def test_folders_that_will_not_do(folders: Path, tmp_path: Path) -> None:
    other_task = {
        "text-classification": (folders / "vit", "is not made for text-classification"),
        "image-classification": (folders / "bert", "is not made for image-classification"),
        "language-model": (folders / "bert", "language-model needs BertLMHeadModel"),
    }
    for task, (folder, message) in other_task.items():
        with pytest.raises(NetworkError, match=message):
            load_network(f"hf:{folder}", task=task)
    with pytest.raises(NetworkError, match=r"names BertModel, but text-classification needs BertForSequenceClassification"):
        load_network(f"hf:{folders / 'encoder'}", task="text-classification")
    for number, (settings, message) in enumerate(
        [
            ({"architectures": ["BertForChess"]}, "has no BertForChess: its own code is never run"),
            ({"architectures": ["BertConfig"]}, "which is no network of transformers"),
            ({"architectures": ["BertForSequenceClassification"], "num_hidden_layers": 3}, "lack bert.encoder.layer.2"),
            ({"intermediate_size": 48}, "have another shape for bert.encoder.layer.0.intermediate"),
            ({"model_type": "chess", "auto_map": {"AutoConfig": "chess.Config"}}, "code of its own is never run"),
            ({"quantization_config": {"quant_method": "fp8"}}, "quantized already"),
        ]
    ):
        copy = changed(folders, tmp_path / str(number), **settings)
        with pytest.raises(NetworkError, match=message) as caught:
            hf_network(str(copy))
        assert "\n" not in str(caught.value)


def test_weights_are_safetensors_whole_and_finite(folders: Path, tmp_path: Path) -> None:
    copy = changed(folders, tmp_path)
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    with pytest.raises(NetworkError, match=r"no model.safetensors but pytorch_model.bin, a pickle.*save_pretrained"):
        hf_network(str(copy))
    find_factory(f"hf:{copy}")()  # the configuration is enough for that
    (copy / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(NetworkError, match="cannot be read"):
        hf_network(str(copy))
    weights["classifier.weight"][0, 0] = torch.nan
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NetworkError, match=r"NaN or infinite weights \(1 tensors\): classifier.weight"):
        hf_network(str(copy))
    (copy / "config.json").write_text("{")
    with pytest.raises(NetworkError, match=r"config\.json cannot be used"):
        hf_network(str(copy))
    (copy / "config.json").unlink()
    with pytest.raises(NetworkError, match=r"there is no config\.json"):
        hf_network(str(copy))
    with pytest.raises(NetworkError, match="no such folder"):
        load_network(f"hf:{tmp_path / 'nowhere'}")


# ---- the commands of docs/data.md


def says(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_classifier_of_texts_from_folder_to_file_and_back(folders: Path, tmp_path: Path) -> None:
    table = small.write_csv(tmp_path / "reviews.csv", small.reviews(120))
    model, data, out = f"hf:{folders / 'bert'}", f"csv:{table}:text,label", tmp_path / "run"
    told = says("compress", "--model", model, "--data", data, "--ratio", "3", "--out", str(out), *SMALL)
    assert "at least 3x smaller: met" in told
    rows = {row["name"]: row for row in json.loads((out / "result.json").read_text())["rows"]}
    found = json.loads(says("evaluate", str(out / "model.hirelc"), "--model", model, "--data", data, "--json"))
    assert found["accuracy"] == rows["compressed"]["test"] and found["original"] == rows["original"]["test"]
    network = hirelc.load(out / "model.hirelc", model)
    ids = torch.randint(0, len(small.WORDS), (2, 6))
    assert network(input_ids=ids).logits.shape == (2, 2)


def light_and_dark(tmp_path: Path) -> str:
    for name, colour in (("dark", 30), ("light", 220)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(50):
            Image.new("RGB", (20 + i % 3, 18), (colour, i, colour)).save(tmp_path / "photos" / name / f"{i}.png")
    return f"imagefolder:{tmp_path / 'photos'}"


def test_a_look_at_a_vision_transformer_through_images_in_folders(folders: Path, tmp_path: Path) -> None:
    model, data = f"hf:{folders / 'vit'}", light_and_dark(tmp_path)
    assert "block vit.layers.0" in says("inspect", "--model", model, "--data", data)
    found = json.loads(says("inspect", "--model", model, "--data", data, "--image-size", "16", "--json"))
    assert found["input"] == f"two samples of {data}"


@pytest.mark.slow
def test_images_in_folders_and_a_vision_transformer(folders: Path, tmp_path: Path) -> None:
    model, data, out = f"hf:{folders / 'vit'}", light_and_dark(tmp_path), tmp_path / "run"
    told = says("compress", "--model", model, "--data", data, "--ratio", "3", "--out", str(out), *SMALL)
    assert "at least 3x smaller: met" in told and f"--model {model} --data {data}" in told


def test_an_encoder_without_labels_agrees_with_itself(folders: Path, tmp_path: Path) -> None:
    table = small.write_csv(tmp_path / "t.csv", small.reviews(120))
    model, data, out = f"hf:{folders / 'encoder'}", f"csv:{table}:text", tmp_path / "run"
    flags = ("--model", model, "--data", data, "--tokenizer", str(folders / "bert"))
    told = says("compress", *flags, "--task", "distill", "--ratio", "3", "--out", str(out), *SMALL)
    assert "--task distill --tokenizer" in told
    rows = {row["name"]: row for row in json.loads((out / "result.json").read_text())["rows"]}
    assert rows["original"]["test"] == 100 and 50 < rows["compressed"]["test"] < 100
    found = json.loads(says("evaluate", str(out / "model.hirelc"), *flags, "--task", "distill", "--json"))
    assert found["accuracy"] == rows["compressed"]["test"] and found["original"] == 100


def test_a_task_that_is_none_is_one_line(folders: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        [
            "compress",
            "--model",
            f"hf:{folders / 'bert'}",
            "--data",
            "x",
            "--task",
            "chess",
            "--ratio",
            "3",
            "--out",
            str(tmp_path / "o"),
        ],
    )
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "unknown task 'chess'" in done.stderr
