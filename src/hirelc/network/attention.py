"""nn.MultiheadAttention without some of its heads, and where such heads are found.

The stock module splits its width by the number of heads; without some of them, width and heads no longer go together.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hirelc.network.spec import AttributeChange, Coupling, Member

PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


class FewerHeads(nn.MultiheadAttention):
    """Computes what nn.MultiheadAttention does, with as many heads as its projections have left.

    Shapes and meaning of all arguments are those of nn.MultiheadAttention.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        single = query.dim() == 2
        if single:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._projected(query, key, value)
        mask = _joined(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            mixed = F.dropout(weights, dropout) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        result = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if single:
            return result.squeeze(0), None if weights is None else weights.squeeze(0)
        return result if self.batch_first else result.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Query, key and value, each (batch, heads, length, width of a head)."""
        whole = self.in_proj_weight
        parts = [getattr(self, name) for name in PROJECTIONS] if whole is None else whole.chunk(3)
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        inputs = (query, key, value)
        return [
            torch.unflatten(F.linear(x, weight, bias), -1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(inputs, parts, biases, strict=True)
        ]


def _joined(attention: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
    """Both masks as one that is added to the scores, (batch or 1, heads or 1, length, length)."""
    found = None
    if attention is not None:
        attention = _additive(attention, like)
        heads = like.shape[1]
        found = attention[None, None] if attention.dim() == 2 else torch.unflatten(attention, 0, (-1, heads))
    if padding is not None:
        padding = _additive(padding, like)[:, None, None]
        found = padding if found is None else found + padding
    return found


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def without_heads(module: nn.Module) -> None:
    """Makes a module whose projections have been cut compute with what is left."""
    if type(module) is nn.MultiheadAttention:
        module.__class__ = FewerHeads
        module._qkv_same_embed_dim = False  # keeps nn.TransformerEncoderLayer from reading the projections itself


def without_nesting(network: nn.Module) -> None:
    """Keeps each nn.TransformerEncoder that has lost heads from packing padded sequences for the fused path."""
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoder) and any(isinstance(part, FewerHeads) for part in module.modules()):
            module.use_nested_tensor = False


def head_couplings(network: nn.Module) -> Iterator[tuple[Coupling, str]]:
    """The heads of each nn.MultiheadAttention, with its path. (What follows a network's calls does not see inside.)"""
    for path, module in network.named_modules():
        if type(module) is not nn.MultiheadAttention or module.num_heads < 2:
            continue
        if module.bias_k is None and not module.add_zero_attn:
            yield _heads(path, module), path


def _heads(path: str, module: nn.MultiheadAttention) -> Coupling:
    prefix = f"{path}." if path else ""
    heads, dim = module.num_heads, module.embed_dim
    width, thirds = dim // heads, (0, dim, 2 * dim)
    members = [Member(f"{prefix}in_proj_weight", 0, thirds, width, True)]
    if module.in_proj_weight is None:
        members = [Member(f"{prefix}{name}", 0, (0,), width, True) for name in PROJECTIONS]
    if module.in_proj_bias is not None:
        members.append(Member(f"{prefix}in_proj_bias", 0, thirds, width, True))
    members.append(Member(f"{prefix}out_proj.weight", 1, (0,), width))
    return Coupling(heads, tuple(members), (AttributeChange(path, "num_heads", 1),))
