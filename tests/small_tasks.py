"""Small networks and data of every kind of task: images, texts, signals, maps, and samples without labels."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

GOOD = ["fine", "great", "lovely", "warm", "bright", "kind", "happy"]
BAD = ["poor", "awful", "cold", "dull", "rude", "sad", "broken"]
PLAIN = ["the", "a", "film", "food", "day", "room", "was", "is", "very", "and", "so", "it"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *PLAIN]


def save_tokenizer(folder: Path) -> str:
    """A tokenizer of whole words, built here and saved."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    )
    fast.save_pretrained(folder)
    return str(folder)


def reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences whose one telling word makes them positive or negative; the others follow each other in order."""
    generator = torch.Generator().manual_seed(seed)

    rows = []
    for i in range(count):
        start, telling = torch.randint(0, 1000, (2,), generator=generator).tolist()
        around = [PLAIN[(start + k) % len(PLAIN)] for k in range(4 + i % 3)]
        words, label = (GOOD, "pos") if i % 2 == 0 else (BAD, "neg")
        rows.append((" ".join([*around[:3], words[telling % len(words)], *around[3:]]), label))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def tiny_bert(classes: int = 2) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        num_labels=classes,
    )
    return BertForSequenceClassification(config)


def tiny_encoder(pooling: bool = False) -> Any:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    return BertModel(config, add_pooling_layer=pooling)


def tiny_llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


class UNet(nn.Module):
    """Down, across, up with the skip concatenated; one class for each pixel."""

    def __init__(self, classes: int = 3, width: int = 8) -> None:
        super().__init__()
        self.first, self.down = self._block(1, width), nn.MaxPool2d(2)
        self.middle = nn.Sequential(self._block(width, 2 * width), self._block(2 * width, 2 * width))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.last = self._block(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _block(entering: int, leaving: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(entering, leaving, 3, padding=1, bias=False),
            nn.BatchNorm2d(leaving),
            nn.ReLU(),
            nn.Conv2d(leaving, leaving, 3, padding=1, bias=False),
            nn.BatchNorm2d(leaving),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        skip = self.first(x)
        deep = self.up(self.middle(self.down(skip)))
        return self.head(self.last(torch.cat([skip, deep], 1)))


def maps(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """8x8 pictures of a dark and a bright rectangle, and which pixel belongs to what."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.zeros(count, 8, 8, dtype=torch.long)
    for i in range(count):
        for kind in (1, 2):
            top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
            y[i, top : top + 4, left : left + 4] = kind
    x = torch.tensor([0.0, 1.0, -1.0])[y] + 0.2 * torch.randn(y.shape, generator=generator)
    return x[:, None], y


class Signals(nn.Module):
    """A residual 1-D CNN with one number at its end."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, width, 5, 2, 2)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, 2 * width, 3, padding=1, bias=False),
                nn.BatchNorm1d(2 * width),
                nn.ReLU(),
                nn.Conv1d(2 * width, width, 3, padding=1),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for block in self.blocks:
            x = (x + block(x)).relu()
        return self.head(x.mean(-1))


def waves(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy sines, and how fast they swing."""
    generator = torch.Generator().manual_seed(seed)
    speed = 0.2 + 0.8 * torch.rand(count, 1, generator=generator)
    phase = 6.3 * torch.rand(count, 1, generator=generator)
    x = torch.sin(speed * torch.arange(32.0) + phase) + 0.05 * torch.randn(count, 32, generator=generator)
    return x[:, None], 10 * speed[:, 0]


class Pairs(nn.Module):
    """Two inputs in, two outputs out: of a position and a speed, where a thing is next, and its energy."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Linear(3, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(2)
        )
        self.place, self.energy = nn.Linear(width, 2), nn.Linear(width, 1)

    def forward(self, position: Tensor, speed: Tensor) -> dict[str, Tensor]:
        x = self.stem(torch.cat([position, speed], -1))
        for layer in self.layers:
            x = x + layer(x)
        return {"place": self.place(x), "energy": self.energy(x)}


def things(count: int, seed: int = 0) -> tuple[tuple[Tensor, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    position, speed = torch.randn(count, 2, generator=generator), torch.randn(count, 1, generator=generator)
    return (position, speed), torch.cat([position + speed, speed.square()], -1)


def train(network: nn.Module, splits: Any, task: Any, epochs: int, rate: float = 5e-3) -> nn.Module:
    """A short ordinary training, so that there is something to lose."""
    from hirelc.network.calling import call

    torch.manual_seed(0)
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), rate)
    for epoch in range(epochs):
        for x, y in splits.epoch(epoch, training=True):
            loss = task.loss(task.outputs(call(network, x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()
