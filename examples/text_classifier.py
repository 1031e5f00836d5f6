"""A text classifier from a table of sentences: data, tokenizer and network are local files. Nothing is downloaded.

    pip install 'hirelc[hf]'
    python examples/text_classifier.py --out runs/texts

It ends by printing the commands that do the same without Python.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import hirelc
from hirelc.data import Splits, load_data

GOOD = ("fine", "lovely", "sturdy", "quick", "bright")
BAD = ("poor", "dull", "flimsy", "slow", "dim")
THINGS = ("lamp", "chair", "kettle", "coat", "radio", "bicycle", "tent", "clock")
SAYINGS = (
    "the {thing} is {word}",
    "a {word} {thing} , i would say",
    "this {thing} was {word} from the first day",
    "my {thing} turned out to be {word}",
    "what a {word} {thing}",
)


def write_table(path: Path, rows: int) -> None:
    """text,label: a sentence that denies a word means the opposite, so that counting words is not enough."""
    draw = random.Random(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(rows):
            good, denied = draw.random() < 0.5, draw.random() < 0.4
            word = draw.choice(BAD if good == denied else GOOD)
            words = f"not {word}" if denied else word
            writer.writerow([draw.choice(SAYINGS).format(thing=draw.choice(THINGS), word=words), "good" if good else "bad"])


def write_network(folder: Path, table: Path) -> None:
    """A tokenizer of whole words, learned from the table, and a small BERT with fresh weights."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    with table.open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
        id2label={0: "bad", 1: "good"},
        label2id={"bad": 0, "good": 1},
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)


def train(folder: Path, splits: Splits, epochs: int) -> BertForSequenceClassification:
    """Trains the network of a folder and saves it there."""
    net = BertForSequenceClassification.from_pretrained(folder)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for epoch in range(epochs):
        for inputs, labels in splits.train.epoch(seed=epoch, training=True):
            optimizer.zero_grad()
            F.cross_entropy(net(**inputs).logits, labels).backward()
            optimizer.step()
    net.save_pretrained(folder)
    return net


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("runs/texts"), help="a new folder for the run")
    options.add_argument("--work", type=Path, default=Path("runs/texts-work"), help="for the table and the network")
    options.add_argument("--quick", action="store_true", help="only to see it run: few sentences, hardly any training")
    chosen = options.parse_args()
    rows, epochs, samples, cycles, steps = (200, 1, 1500, 1, 32) if chosen.quick else (4000, 6, 60_000, 3, 768)

    table, network = chosen.work / "reviews.csv", chosen.work / "bert"
    write_table(table, rows)
    write_network(network, table)
    source = f"csv:{table}:text,label"
    splits = load_data(source, batch_size=64, tokenizer=str(network), classes=("bad", "good"))
    net = train(network, splits, epochs)

    config = hirelc.Config(
        search=hirelc.SearchConfig(cycles=cycles, low_level_steps=steps, high_level_steps=steps),
        train=hirelc.TrainConfig(images=samples, batch_size=64),
    )
    result = hirelc.compress(
        net, splits.train, splits.validation, hirelc.Goal(ratio=8), chosen.out, test=splits.test, config=config
    )
    for row in result.rows:
        print(f"{row.name:12} {row.size_bytes:9,} bytes  {row.ratio:5.1f}x  {row.test:.2f} % on the test split")
    print("the same from the command line:")
    print(f"  hirelc compress --model hf:{network} --data {source} --ratio 8 --out {chosen.out}-again")
    print(f"  hirelc evaluate {result.path} --model hf:{network} --data {source}")


if __name__ == "__main__":
    main()
