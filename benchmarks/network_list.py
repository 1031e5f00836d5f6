"""Small networks of transformers, built from their configurations, with an input for each.

Those of the project's own list come first; the others are architectures that nobody had in mind while writing it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

SAMPLES = 4
HIDDEN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {"vocab_size": 100, **HIDDEN}
LANGUAGE = {"max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, **TEXT}
GROUPED = {"num_key_value_heads": 2, **LANGUAGE}
PATCHES = {"image_size": 32, "patch_size": 8, **HIDDEN}
STAGES = {"hidden_sizes": [16, 32], "depths": [2, 2]}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
PYRAMID = {"hidden_sizes": [16, 16, 32, 32], "depths": [2, 2, 2, 2], "num_attention_heads": [1, 2, 2, 4]}
T5 = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
DISTIL = {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
GPT2 = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 1}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "num_mel_bins": 16,
    "max_source_positions": 50,
}
WAVES = {
    "conv_dim": [16, 16],
    "conv_stride": [5, 4],
    "conv_kernel": [10, 8],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    **TEXT,
}
MOBILEVIT = {
    "image_size": 64,
    "hidden_sizes": [16, 24, 32],
    "neck_hidden_sizes": [8, 8, 16, 24, 32, 32, 64],
    "num_attention_heads": 4,
}
LEVIT = {
    "image_size": 64,
    "hidden_sizes": [16, 32, 48],
    "num_attention_heads": [2, 4, 6],
    "depths": [2, 2, 2],
    "key_dim": [8, 8, 8],
}
BART = {
    "vocab_size": 100,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 40,
    "use_cache": False,
}
PERCEIVER = {
    "num_latents": 8,
    "d_latents": 32,
    "num_blocks": 1,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 4,
    "image_size": 32,
}
MASKED = {
    "mask_ratio": 0.0,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    **PATCHES,
}
BACKBONE = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 32],
    "depths": [1, 1],
    "out_features": ["stage2"],
}
DETR = {k: v for k, v in BART.items() if k not in ("vocab_size", "max_position_embeddings", "use_cache")}
PROJECTED = {"projection_dim": 16}
STATES = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "use_cache": False}


def images(side: int = 32) -> Callable[[], Tensor]:
    return lambda: torch.randn(SAMPLES, 3, side, side)


def text() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(2, 90, (SAMPLES, 12)), "attention_mask": torch.ones(SAMPLES, 12, dtype=torch.long)}


def tokens() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(2, 90, (SAMPLES, 12))}


def pairs() -> dict[str, Tensor]:
    """For an encoder and a decoder."""
    return {"input_ids": torch.randint(3, 90, (SAMPLES, 12)), "decoder_input_ids": torch.randint(3, 90, (SAMPLES, 7))}


def captions() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(SAMPLES, 3, 32, 32), **text()}


def spectrum() -> dict[str, Tensor]:
    return {"input_features": torch.randn(SAMPLES, 16, 100)}


def sound() -> dict[str, Tensor]:
    return {"input_values": torch.randn(SAMPLES, 1600)}


@dataclass(frozen=True)
class Network:
    """One row of the table: class and configuration of transformers, by name.

    :param listed: whether it is on the list of networks that the project set out with
    """

    name: str
    model: str
    config: str
    inputs: Callable[[], Any]
    settings: dict[str, Any] = field(default_factory=dict)
    listed: bool = True

    def make(self) -> nn.Module:
        """The network with random weights, the same at each call, none of them at a neutral start."""
        import transformers

        torch.manual_seed(0)
        return shaken(getattr(transformers, self.model)(getattr(transformers, self.config)(**self.settings)))


def shaken(network: nn.Module) -> nn.Module:
    """Norms, biases and layer scales that are not ones, zeros or millionths: else much of a network would not be seen."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith("running_mean"):
                tensor.uniform_(-0.3, 0.3, generator=generator)
            elif isinstance(tensor, nn.Parameter) and tensor.is_floating_point() and tensor.numel():
                if tensor.ndim == 1 and float(tensor.abs().max()) < 0.01:
                    tensor.uniform_(-0.3, 0.3, generator=generator)
                elif tensor.ndim == 2 and float(tensor.std()) < 0.1:
                    tensor.normal_(0, tensor.shape[-1] ** -0.5, generator=generator)
    return network


def image(name: str, model: str, settings: dict[str, Any], side: int = 32, listed: bool = True) -> Network:
    return Network(name, f"{model}ForImageClassification", f"{model}Config", images(side), settings, listed)


def sentence(name: str, model: str, settings: dict[str, Any], listed: bool = True) -> Network:
    return Network(name, f"{model}ForSequenceClassification", f"{model}Config", text, settings, listed)


def decoder(name: str, model: str, settings: dict[str, Any], listed: bool = True) -> Network:
    return Network(name, f"{model}ForCausalLM", f"{model}Config", tokens, settings, listed)


LISTED = (
    image("ResNet, basic", "ResNet", {"embedding_size": 16, "layer_type": "basic", **STAGES}),
    image("ResNet, bottleneck", "ResNet", {"embedding_size": 16, **STAGES}),
    image("RegNet", "RegNet", {"embedding_size": 16, "groups_width": 8, **STAGES}),
    image("MobileNetV2", "MobileNetV2", {"depth_multiplier": 0.35, "image_size": 64}, 64),
    image(
        "EfficientNet",
        "EfficientNet",
        {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.5, "hidden_dim": 320},
        64,
    ),
    image("ConvNeXt", "ConvNext", {"num_stages": 2, **STAGES}),
    image("ViT", "ViT", PATCHES),
    Network("DeiT, two heads", "DeiTForImageClassificationWithTeacher", "DeiTConfig", images(), PATCHES),
    image("Swin", "Swin", SWIN),
    sentence("BERT", "Bert", TEXT),
    sentence("DistilBERT", "DistilBert", DISTIL),
    Network("GPT-2", "GPT2LMHeadModel", "GPT2Config", tokens, GPT2),
    decoder("Llama, grouped queries", "Llama", GROUPED),
    Network("Whisper encoder", "WhisperForAudioClassification", "WhisperConfig", spectrum, WHISPER),
    Network("wav2vec2", "Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", sound, WAVES),
)
OTHERS = (
    image("ConvNeXtV2", "ConvNextV2", {"num_stages": 2, **STAGES}, listed=False),
    image("BiT", "Bit", {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [2, 2], "num_groups": 4}, listed=False),
    image("DINOv2", "Dinov2", PATCHES, listed=False),
    image("BEiT, relative positions", "Beit", {"use_relative_position_bias": True, **PATCHES}, listed=False),
    image("SwinV2", "Swinv2", SWIN, listed=False),
    image("MobileViT", "MobileViT", MOBILEVIT, 64, listed=False),
    image("PoolFormer", "PoolFormer", {"hidden_sizes": [8, 16, 24, 32], "depths": [2, 2, 2, 2]}, 64, listed=False),
    image("SegFormer", "Segformer", {"decoder_hidden_size": 32, **PYRAMID}, 64, listed=False),
    image("PVT", "Pvt", {"image_size": 64, **PYRAMID}, 64, listed=False),
    image("LeViT", "Levit", LEVIT, 64, listed=False),
    Network("CLIP vision", "CLIPVisionModel", "CLIPVisionConfig", images(), PATCHES, listed=False),
    sentence("ALBERT", "Albert", {"embedding_size": 16, **TEXT}, listed=False),
    sentence("ELECTRA", "Electra", {"embedding_size": 16, **TEXT}, listed=False),
    sentence("DeBERTa", "DebertaV2", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], **TEXT}, listed=False),
    sentence("SqueezeBERT", "SqueezeBert", {"embedding_size": 32, **TEXT}, listed=False),
    Network("T5 encoder", "T5EncoderModel", "T5Config", tokens, T5, listed=False),
    decoder("Qwen3", "Qwen3", {"head_dim": 8, **GROUPED}, listed=False),
    decoder("Phi-3", "Phi3", GROUPED, listed=False),
    decoder("Falcon", "Falcon", {**{k: TEXT[k] for k in TEXT if k != "intermediate_size"}}, listed=False),
    decoder("Mixtral", "Mixtral", {"num_local_experts": 4, **GROUPED}, listed=False),
    decoder("Mamba", "Mamba", STATES, listed=False),
    Network(
        "T5, encoder and decoder", "T5ForConditionalGeneration", "T5Config", pairs, {"use_cache": False, **T5}, listed=False
    ),
    Network("BART", "BartForConditionalGeneration", "BartConfig", pairs, BART, listed=False),
    Network(
        "CLIP, both towers",
        "CLIPModel",
        "CLIPConfig",
        captions,
        {"text_config": {**LANGUAGE, **PROJECTED}, "vision_config": {**PATCHES, **PROJECTED}, **PROJECTED},
        listed=False,
    ),
    Network("SigLIP vision", "SiglipVisionModel", "SiglipVisionConfig", images(), PATCHES, listed=False),
    decoder("Gemma 2", "Gemma2", {"head_dim": 8, "query_pre_attn_scalar": 8, **GROUPED}, listed=False),
    decoder("GPT-NeoX", "GPTNeoX", {"use_cache": False, **LANGUAGE}, listed=False),
    decoder(
        "Bloom", "Bloom", {"vocab_size": 100, "hidden_size": 32, "n_layer": 2, "n_head": 4, "use_cache": False}, listed=False
    ),
    sentence("ModernBERT", "ModernBert", {**LANGUAGE, "cls_token_id": 1, "sep_token_id": 2}, listed=False),
    sentence("XLNet", "XLNet", {"vocab_size": 100, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}, listed=False),
    sentence("MPNet", "MPNet", {**TEXT, "max_position_embeddings": 40}, listed=False),
    sentence("Longformer", "Longformer", {**TEXT, "max_position_embeddings": 40, "attention_window": 4}, listed=False),
    Network("Perceiver", "PerceiverForImageClassificationLearned", "PerceiverConfig", images(), PERCEIVER, listed=False),
    Network(
        "YOLOS",
        "YolosForObjectDetection",
        "YolosConfig",
        images(),
        {**PATCHES, "image_size": [32, 32], "num_detection_tokens": 5},
        listed=False,
    ),
    Network(
        "DETR",
        "DetrForObjectDetection",
        "DetrConfig",
        images(64),
        {"use_timm_backbone": False, "backbone_config": BACKBONE, "num_queries": 5, **DETR},
        listed=False,
    ),
    image(
        "FocalNet",
        "FocalNet",
        {"image_size": 32, "embed_dim": 16, "depths": [2, 2], "focal_levels": [2, 2], "focal_windows": [3, 3]},
        listed=False,
    ),
    Network("ViTMAE encoder", "ViTMAEModel", "ViTMAEConfig", images(), MASKED, listed=False),
    Network("WavLM", "WavLMForSequenceClassification", "WavLMConfig", sound, {"num_buckets": 16, **WAVES}, listed=False),
    decoder("Mamba 2", "Mamba2", {"head_dim": 8, "num_heads": 8, "n_groups": 1, "chunk_size": 8, **STATES}, listed=False),
)
NETWORKS = (*LISTED, *OTHERS)
