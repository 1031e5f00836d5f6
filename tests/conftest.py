"""What all tests share: few threads (workers run side by side) and tiny data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hirelc.idx import IDX_FILES, write_idx

torch.set_num_threads(1)


@pytest.fixture
def tiny_images() -> tuple[Tensor, Tensor]:
    """40 random uint8 images (40, 1, 8, 8) and their labels, 0..3."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (40, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return x, torch.arange(40) % 4


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """A folder with four plain idx files: 36 training and 8 test images of 8x8 pixels, four classes."""
    folder = tmp_path / "idx"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in IDX_FILES:
        count = 36 if name.startswith("train") else 8
        array = np.arange(count, dtype=np.uint8) % 4 if "labels" in name else random.integers(0, 256, (count, 8, 8), np.uint8)
        write_idx(folder / name, array)
    return folder
