"""Global randomness and threads, borrowed and given back.

stable-baselines3 draws from the global generators of python, numpy and torch. Inside `isolated` they follow a
stream of ours, outside they are as if nothing had happened: the search neither disturbs nor depends on the
fine-tuning between its cycles.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seeds the global generators and uses one thread (tiny networks lose more than they gain by several)."""
    python_state, numpy_state, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            np.random.set_state(numpy_state)
            random.setstate(python_state)
