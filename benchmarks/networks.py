"""What hirelc sees in networks it was not written for: small Hugging Face models built from their configurations.

    python benchmarks/networks.py            # prints the table of RESULTS-networks.md

Public API only. `missed` counts linear layers and convolutions that are neither kernels nor listed with a reason.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from pathlib import Path

import torch
import transformers as hf
from torch import nn

import hirelc

HERE = Path(__file__).parent
TEXT = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
STAGES = {"hidden_sizes": [16, 32], "depths": [2, 2]}
IMAGE = {"image_size": 32, "patch_size": 8}


def images(size: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, size, size)


def tokens() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(2, 90, (2, 12))}


NETWORKS = {
    "ResNet, basic": (
        hf.ResNetForImageClassification,
        hf.ResNetConfig(embedding_size=16, layer_type="basic", **STAGES),
        images(32),
    ),
    "ResNet, bottleneck": (hf.ResNetForImageClassification, hf.ResNetConfig(embedding_size=16, **STAGES), images(32)),
    "RegNet": (hf.RegNetForImageClassification, hf.RegNetConfig(embedding_size=16, groups_width=8, **STAGES), images(32)),
    "MobileNetV2": (
        hf.MobileNetV2ForImageClassification,
        hf.MobileNetV2Config(depth_multiplier=0.35, image_size=64),
        images(64),
    ),
    "EfficientNet": (
        hf.EfficientNetForImageClassification,
        hf.EfficientNetConfig(image_size=64, width_coefficient=0.25, depth_coefficient=0.5, hidden_dim=320),
        images(64),
    ),
    "ConvNeXt": (hf.ConvNextForImageClassification, hf.ConvNextConfig(num_stages=2, **STAGES), images(32)),
    "ConvNeXtV2": (hf.ConvNextV2ForImageClassification, hf.ConvNextV2Config(num_stages=2, **STAGES), images(32)),
    "ViT": (hf.ViTForImageClassification, hf.ViTConfig(**IMAGE, **TEXT), images(32)),
    "DeiT": (hf.DeiTForImageClassification, hf.DeiTConfig(**IMAGE, **TEXT), images(32)),
    "DINOv2": (hf.Dinov2ForImageClassification, hf.Dinov2Config(**IMAGE, **TEXT), images(32)),
    "Swin": (
        hf.SwinForImageClassification,
        hf.SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4),
        images(32),
    ),
    "BERT": (hf.BertForSequenceClassification, hf.BertConfig(**TEXT), tokens()),
    "DistilBERT": (
        hf.DistilBertForSequenceClassification,
        hf.DistilBertConfig(vocab_size=100, dim=32, n_layers=3, n_heads=4, hidden_dim=64),
        tokens(),
    ),
    "GPT-2": (
        hf.GPT2LMHeadModel,
        hf.GPT2Config(vocab_size=100, n_embd=32, n_layer=3, n_head=4, n_positions=32, bos_token_id=0, eos_token_id=1),
        tokens(),
    ),
    "Llama": (hf.LlamaForCausalLM, hf.LlamaConfig(num_key_value_heads=2, **TEXT), tokens()),
    "T5 encoder": (
        hf.T5EncoderModel,
        hf.T5Config(vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4),
        tokens(),
    ),
    "Whisper encoder": (
        hf.WhisperForAudioClassification,
        hf.WhisperConfig(
            d_model=32,
            encoder_layers=2,
            encoder_attention_heads=4,
            encoder_ffn_dim=64,
            num_mel_bins=16,
            max_source_positions=50,
        ),
        {"input_features": torch.randn(2, 16, 100)},
    ),
}


def layers(network: nn.Module) -> list[str]:
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return [name for name, module in network.named_modules() if isinstance(module, kinds) or type(module).__name__ == "Conv1D"]


def row(name: str) -> str:
    kind, config, inputs = NETWORKS[name]
    torch.manual_seed(0)
    network = kind(config).eval()
    begun = time.monotonic()
    try:
        spec = hirelc.trace(network, inputs)
    except hirelc.HirelcError as error:
        return f"| {name} | refused: {error} | | | | | | | |"
    seen = {k.module for k in spec.kernels} | {u.name.rpartition(".")[0] for u in spec.untouched}
    missed = [layer for layer in layers(network) if layer not in seen]
    ways = Counter(k.pruning.value for k in spec.kernels)
    heads = sum(any(m.produces and m.width > 1 for m in c.members) for c in spec.couplings)
    cells = [
        name,
        len(spec.kernels),
        len(missed),
        f"{len(spec.blocks)} ({spec.blocks[0].name} ..)",
        ways["coupled"],
        ways["rows"],
    ]
    cells += [ways["none"], heads, f"{time.monotonic() - begun:.1f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    warnings.simplefilter("ignore")
    head = ("network", "kernels", "missed", "blocks", "coupled", "rows", "none", "head groups", "s")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *(row(name) for name in NETWORKS)]
    print("\n".join(lines))
    text = "# What hirelc sees in other networks\n\n    python benchmarks/networks.py\n\n"
    text += f"transformers {hf.__version__}, torch {torch.__version__}.\n\n" + "\n".join(lines) + "\n"
    (HERE / "RESULTS-networks.md").write_text(text)


if __name__ == "__main__":
    main()
