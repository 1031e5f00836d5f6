"""Networks of a benchmark folder: `networks.py` with a class for each, and its trained weights as NAME.safetensors."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from hirelc.errors import NetworkError

NETWORKS_FILE = "networks.py"


def benchmark_network(folder: Path, name: str) -> nn.Module:
    """A trained network of the folder.

    :raises NetworkError: there is no such network, or its weights do not fit
    """
    weights = folder / f"{name}.safetensors"
    network: nn.Module = benchmark_factory(folder, name)()
    try:
        network.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise NetworkError(f"{weights} does not hold the weights of {name} ({' '.join(str(error).split())})") from error
    return network


def benchmark_factory(folder: Path, name: str) -> Callable[[], Any]:
    """The class of `networks.py` that is called like the network, whatever the case of its letters.

    :raises NetworkError: there is no such file or class
    """
    path = folder / NETWORKS_FILE
    if not path.is_file():
        raise NetworkError(f"{path} is missing: --bench names the folder that holds {NETWORKS_FILE} and the weights")
    found = importlib.util.spec_from_file_location("benchmark_networks", path)
    assert found is not None and found.loader is not None  # it is a .py file
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # the export looks up where a network's code comes from
    found.loader.exec_module(module)
    classes = {key.lower(): value for key, value in vars(module).items() if isinstance(value, type)}
    if name.lower() not in classes:
        there = sorted(weights.stem for weights in folder.glob("*.safetensors") if weights.stem.lower() in classes)
        raise NetworkError(f"{path} has no network {name!r}: choose one of {', '.join(there) or 'those it defines'}")
    factory: Callable[[], Any] = classes[name.lower()]
    return factory
