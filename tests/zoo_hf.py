"""Small networks of transformers, built from their configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo_entry import Entry, each, images, tokens


def _hf(config: str, model: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = pytest.importorskip("transformers")
        return getattr(transformers, model)(getattr(transformers, config)(**settings))

    return make


HF_PARTS = ("vit.embeddings.cls_token", "vit.embeddings.position_embeddings")
TEXT = {"vocab_size": 50, "max_position_embeddings": 16}
BERT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "initializer_range": 0.2}
IMAGE = {"image_size": 16, "patch_size": 4, "num_channels": 3}
DISTIL = {"dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "initializer_range": 0.2, **TEXT}
GPT2 = {"n_embd": 24, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 16, "bos_token_id": 0, "eos_token_id": 1}
DIMS = {k: BERT[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
WHISPER = {
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "num_mel_bins": 8,
    "max_source_positions": 16,
    "init_std": 0.2,
    "vocab_size": 50,
    "classifier_proj_size": 12,
}
WAVE = {
    **DIMS,
    "conv_dim": [8, 8],
    "conv_stride": [5, 4],
    "conv_kernel": [10, 8],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 4,
    "initializer_range": 0.2,
    "vocab_size": 50,
    "classifier_proj_size": 12,
}
ALBERT = {"embedding_size": 12, **BERT, **TEXT}
STAGES = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 2]}
MOBILE = {"depth_multiplier": 0.35, "image_size": 64}
EFFICIENT = {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320}
CONVNEXT = {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [2, 2], "patch_size": 2, "layer_scale_init_value": 0.5}


def _texts() -> dict[str, Tensor]:
    return {"input_ids": tokens()(), "attention_mask": torch.ones(2, 9, dtype=torch.long)}


def _pixels() -> dict[str, Tensor]:
    return {"pixel_values": images()()}


def _larger() -> dict[str, Tensor]:
    return {"pixel_values": images(2, 3, 64, 64)()}


def _spectrum() -> dict[str, Tensor]:
    return {"input_features": images(2, 8, 32)()}


def _sound() -> dict[str, Tensor]:
    return {"input_values": images(2, 400)()}


HF_VIT = each("vit.layers.{}", "attention.q_proj attention.k_proj attention.v_proj mlp.fc1")
HF_BERT = each("bert.encoder.layer.{}", "attention.self.query attention.self.key attention.self.value intermediate.dense")
HF_DISTIL = each("distilbert.transformer.layer.{}", "attention.q_lin attention.k_lin attention.v_lin ffn.lin1")
HF_GPT2 = each("transformer.h.{}", "attn.c_attn mlp.c_fc")
HF_LLAMA = each("model.layers.{}", "self_attn.q_proj self_attn.k_proj self_attn.v_proj mlp.gate_proj mlp.up_proj")
QKV = "attention.q_proj attention.k_proj attention.v_proj"
DEIT = each("deit.layers.{}", f"{QKV} mlp.fc1")
DEIT_PARTS = ("deit.embeddings.cls_token", "deit.embeddings.distillation_token", "deit.embeddings.position_embeddings")
SWIN_BLOCKS = ("swin.encoder.layers.0.blocks.{}", "swin.encoder.layers.1.blocks.{}")
HF_SWIN = tuple(name for block in SWIN_BLOCKS for name in each(block, f"{QKV} mlp.fc1"))
TABLE = ".attention.relative_position_bias.relative_position_bias_table"
SWIN_PARTS = tuple(block.format(i) + TABLE for block in SWIN_BLOCKS for i in (0, 1))
HF_WHISPER = each("encoder.layers.{}", "self_attn.k_proj self_attn.v_proj self_attn.q_proj fc1")
HF_WAVE = each("wav2vec2.encoder.layers.{}", f"{QKV} feed_forward.intermediate_dense")
WAVE_PARTS = ("wav2vec2.encoder.pos_conv_embed.conv.weight",)
HF_ALBERT = each(
    "albert.encoder.albert_layer_groups.{}.albert_layers.0", "attention.query attention.key attention.value ffn", 1
)
LAYERS = ("{}.encoder.stages.0.layers.{{}}", "{}.encoder.stages.1.layers.{{}}")


def _stages(prefix: str, names: str) -> tuple[str, ...]:
    return tuple(name for layers in LAYERS for name in each(layers.format(prefix), names))


RESNET = _stages("resnet", "layer.0.convolution layer.1.convolution")
REGNET = _stages("regnet", "layer.0.convolution layer.1.convolution layer.2.attention.0 layer.2.attention.2")
INVERTED = each("mobilenet_v2.layer.{}", "expand_1x1.convolution conv_3x3.convolution", 16)
EXCITE = "expansion.expand_conv depthwise_conv.depthwise_conv squeeze_excite.reduce squeeze_excite.expand"
SQUEEZED = (
    "efficientnet.encoder.blocks.0.squeeze_excite.reduce.weight",
    *each("efficientnet.encoder.blocks.{}", EXCITE, 8)[4:],
)
CNX = _stages("convnext", "pwconv1")

ENTRIES = (
    Entry("hf-vit", _hf("ViTConfig", "ViTForImageClassification", **BERT, **IMAGE), _pixels, 2, HF_VIT, HF_PARTS),
    Entry("hf-bert", _hf("BertConfig", "BertForSequenceClassification", **BERT, **TEXT), _texts, 2, HF_BERT),
    Entry("hf-distilbert", _hf("DistilBertConfig", "DistilBertForSequenceClassification", **DISTIL), _texts, 2, HF_DISTIL),
    Entry("hf-gpt2", _hf("GPT2Config", "GPT2LMHeadModel", **GPT2), tokens(), 2, HF_GPT2, ("lm_head.weight",)),
    Entry("hf-deit", _hf("DeiTConfig", "DeiTForImageClassificationWithTeacher", **BERT, **IMAGE), _pixels, 2, DEIT, DEIT_PARTS),
    Entry("hf-swin", _hf("SwinConfig", "SwinForImageClassification", **SWIN), _pixels, 4, HF_SWIN, SWIN_PARTS),
    Entry("hf-whisper", _hf("WhisperConfig", "WhisperForAudioClassification", **WHISPER), _spectrum, 2, HF_WHISPER),
    Entry("hf-wav2vec2", _hf("Wav2Vec2Config", "Wav2Vec2ForSequenceClassification", **WAVE), _sound, 2, HF_WAVE, WAVE_PARTS),
    Entry("hf-albert", _hf("AlbertConfig", "AlbertForSequenceClassification", **ALBERT), _texts, 1, HF_ALBERT),
    Entry("hf-resnet", _hf("ResNetConfig", "ResNetForImageClassification", **STAGES), _pixels, 4, RESNET, slow=True),
    Entry(
        "hf-regnet",
        _hf("RegNetConfig", "RegNetForImageClassification", groups_width=8, **STAGES),
        _pixels,
        4,
        REGNET,
        slow=True,
    ),
    Entry(
        "hf-mobilenet",
        _hf("MobileNetV2Config", "MobileNetV2ForImageClassification", **MOBILE),
        _larger,
        16,
        INVERTED,
        slow=True,
    ),
    Entry(
        "hf-efficientnet",
        _hf("EfficientNetConfig", "EfficientNetForImageClassification", **EFFICIENT),
        _larger,
        8,
        SQUEEZED,
        slow=True,
    ),
    Entry("hf-convnext", _hf("ConvNextConfig", "ConvNextForImageClassification", **CONVNEXT), _pixels, 4, CNX, slow=True),
    Entry("hf-llama", _hf("LlamaConfig", "LlamaForCausalLM", num_key_value_heads=2, **BERT, **TEXT), tokens(), 2, HF_LLAMA),
)
