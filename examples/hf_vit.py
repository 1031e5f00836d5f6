"""A vision transformer of Hugging Face, made from a local configuration, on a folder of images. Nothing is downloaded.

    pip install 'hirelc[hf]'
    python examples/hf_vit.py --out runs/hf-vit

With a network and photos of your own the command line does it all:

    hirelc compress --model hf:FOLDER --data imagefolder:DIR --ratio 10 --out runs/mine
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

import hirelc
from hirelc.data import Splits, load_data
from hirelc.hf_models import data_wishes

CLOTHES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


def write_images(folder: Path, count: int) -> None:
    """FOLDER/CLASS/NUMBER.png, as anyone's photos may lie around."""
    splits = load_data("demo", augment=None)
    saved = 0
    for images, labels in splits.train.epoch(seed=0, training=False):
        grey = ((images * 0.353 + 0.286).clamp(0, 1) * 255).byte()  # the normalisation of the bundled images, undone
        for image, label in zip(grey, labels.tolist(), strict=True):
            path = folder / CLOTHES[label] / f"{saved:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(path)
            saved += 1
            if saved == count:
                return


def write_network(folder: Path) -> None:
    """config.json, model.safetensors and preprocessor_config.json, as `save_pretrained` writes them."""
    config = ViTConfig(
        image_size=28,
        patch_size=7,
        num_channels=1,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        id2label=dict(enumerate(sorted(CLOTHES))),  # so that folders and outputs are put together by name
        label2id={name: index for index, name in enumerate(sorted(CLOTHES))},
    )
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 28, "width": 28}, image_mean=[0.5], image_std=[0.5]).save_pretrained(folder)


def train(folder: Path, splits: Splits, epochs: int) -> ViTForImageClassification:
    """Trains the network of a folder and saves it there."""
    net = ViTForImageClassification.from_pretrained(folder)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for epoch in range(epochs):
        for images, labels in splits.train.epoch(seed=epoch, training=True):
            optimizer.zero_grad()
            F.cross_entropy(net(images).logits, labels).backward()
            optimizer.step()
    net.save_pretrained(folder)
    return net


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("runs/hf-vit"), help="a new folder for the run")
    options.add_argument("--work", type=Path, default=Path("runs/hf-vit-work"), help="for the network and the images")
    options.add_argument("--quick", action="store_true", help="only to see it run: few images, hardly any training")
    chosen = options.parse_args()
    count, epochs, images, cycles, steps = (200, 1, 1500, 1, 32) if chosen.quick else (6000, 8, 100_000, 3, 768)

    network, photos = chosen.work / "vit", chosen.work / "photos"
    write_images(photos, count)
    write_network(network)
    # size and normalisation come from the network's own files; a tenth each becomes validation and test
    splits = load_data(f"imagefolder:{photos}", batch_size=64, **data_wishes(str(network)))
    net = train(network, splits, epochs)

    config = hirelc.Config(
        search=hirelc.SearchConfig(cycles=cycles, low_level_steps=steps, high_level_steps=steps),
        train=hirelc.TrainConfig(images=images, batch_size=64),
    )
    result = hirelc.compress(
        net, splits.train, splits.validation, hirelc.Goal(ratio=10), chosen.out, test=splits.test, config=config
    )
    for row in result.rows:
        print(f"{row.name:12} {row.size_bytes:9,} bytes  {row.ratio:5.1f}x  {row.test:.2f} % on the test split")

    small = hirelc.load(result.path, f"hf:{network}")  # of the folder, only config.json is read
    picture = next(photos.rglob("*.png"))
    pixels = torch.from_numpy(np.array(Image.open(picture))).view(1, 1, 28, 28)
    with torch.no_grad():
        answer = small((pixels / 255 - 0.5) / 0.5).logits.argmax(1).item()
    print(f"{picture.name} of {picture.parent.name}: {net.config.id2label[answer]}")


if __name__ == "__main__":
    main()
