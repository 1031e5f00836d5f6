"""Small networks of our own that look like those people bring, with what hirelc must find in each."""

from __future__ import annotations

import torch
from torch import nn

import zoo_attention
import zoo_cnn
import zoo_hf
import zoo_lookalikes
import zoo_lookalikes_cnn
import zoo_unforeseen
from zoo_attention import TorchEncoder as TorchEncoder
from zoo_attention import Twice as Twice
from zoo_entry import Entry as Entry

FAMILIES = (zoo_cnn, zoo_attention, zoo_lookalikes_cnn, zoo_lookalikes, zoo_unforeseen, zoo_hf)
ENTRIES = tuple(entry for family in FAMILIES for entry in family.ENTRIES)
BY_NAME = {entry.name: entry for entry in ENTRIES}


def build(entry: Entry) -> nn.Module:
    """The network in eval mode with the weights of seed 0, its norms and biases shaken so that none is neutral."""
    torch.manual_seed(0)
    network = entry.factory().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point() and name.endswith(("bias", "running_mean")):
                tensor.uniform_(-0.3, 0.3, generator=generator)
    return network
