"""Networks of Hugging Face transformers: `hf:FOLDER` (config.json and model.safetensors) or `hf:HUB_ID`.

The class is the one that the configuration names, so that file and network agree; without a name it follows from the
task. No code of the folder is run and no pickle is opened.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from hirelc.errors import NetworkError

PREFIX = "hf:"
HEADS = {
    "image-classification": "AutoModelForImageClassification",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "language-model": "AutoModelForCausalLM",
    "segmentation": "AutoModelForSemanticSegmentation",
    "segmentation-iou": "AutoModelForSemanticSegmentation",
}
ENDINGS = {
    "ForImageClassification": "image-classification",
    "ForImageClassificationWithTeacher": "image-classification",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForSemanticSegmentation": "segmentation",
    "ForCausalLM": "language-model",
    "LMHeadModel": "language-model",
}
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
MAX_TOKENS = 256
SHOWN_NAMES = 3


def usual_task(where: str) -> str:
    """The task that the network's own head is for; distillation, which needs no labels, where it has none."""
    named = next(iter(_config(where).architectures or ()), "")
    return next((task for ending, task in ENDINGS.items() if named.endswith(ending)), "distill")


def hf_factory(where: str, task: str | None = None) -> Callable[[], nn.Module]:
    """Builds the network from its configuration alone, with random weights.

    :param where: a folder, or an id on the hub
    :param task: of `HEADS`; others take the class that the configuration names
    :raises NetworkError: transformers or the configuration is missing, or it is of a network for another task
    """
    config = _config(where)
    kind = _class(where, config, task)

    def make() -> nn.Module:
        network: nn.Module = kind._from_config(config)
        return network

    return make


def hf_network(where: str, task: str | None = None) -> nn.Module:
    """The network with its weights, in eval mode and float32.

    :raises NetworkError: as `hf_factory`; or there are no safetensors, or they do not fit
    """
    config = _config(where)
    kind = _class(where, config, task)
    folder = Path(where).expanduser()
    if folder.is_dir() and not has_weights(where):
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.h5") for path in folder.glob(pattern))
        found = f" but {pickles[0]}, a pickle, which runs code when it is opened" if pickles else ""
        raise NetworkError(
            f"{folder}: there is no {WEIGHTS[0]}{found}: where you trust it, load it and write model.save_pretrained(folder)"
        )
    try:
        with _silence():
            network, info = kind.from_pretrained(
                str(folder) if folder.is_dir() else where,
                config=config,
                use_safetensors=True,
                local_files_only=folder.is_dir(),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are named below
                dtype=torch.float32,
            )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise NetworkError(
            f"hf:{where}: the weights cannot be read: {_line(error)}: give a folder with {WEIGHTS[0]}"
        ) from error
    missing = sorted(map(str, info.get("missing_keys", ())))
    other = sorted(str(entry[0] if isinstance(entry, tuple | list) else entry) for entry in info.get("mismatched_keys", ()))
    for title, names in (("lack", missing), ("have another shape for", other)):
        if names:
            more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
            shown = ", ".join(names[:SHOWN_NAMES])
            raise NetworkError(
                f"hf:{where}: the weights of {kind.__name__} {title} {shown}{more}: train and save it for this task"
            )
    bad = [name for name, tensor in network.named_parameters() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise NetworkError(f"hf:{where}: NaN or infinite weights ({len(bad)} tensors): {', '.join(bad[:SHOWN_NAMES])}")
    return network.eval()  # type: ignore[no-any-return]


def has_weights(where: str) -> bool:
    """Whether a local folder holds safetensors."""
    return any((Path(where).expanduser() / name).is_file() for name in WEIGHTS)


def data_wishes(where: str) -> dict[str, Any]:
    """What the network's own files say about its data, as fields of `sources.base.Request`."""
    config = _config(where)
    wishes: dict[str, Any] = {}
    shape = _image_shape(config, _json(where, "preprocessor_config.json"))
    if shape is not None:
        wishes["image"] = shape
    processor = _json(where, "preprocessor_config.json")
    if processor.get("do_normalize", True) and "image_mean" in processor and "image_std" in processor:
        wishes["normalise"] = tuple(processor["image_mean"]), tuple(processor["image_std"])
    elif processor.get("do_normalize") is False:
        wishes["normalise"] = "none"
    folder = Path(where).expanduser()
    if not folder.is_dir() or any((folder / name).is_file() for name in TOKENIZER_FILES):
        wishes["tokenizer"] = str(folder) if folder.is_dir() else where
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        wishes["max_tokens"] = min(MAX_TOKENS, positions)
    names = getattr(config, "id2label", None) or {}
    labels = tuple(str(names[key]) for key in sorted(names, key=int))
    if labels and not all(label == f"LABEL_{i}" for i, label in enumerate(labels)):
        wishes["classes"] = labels
    return wishes


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise NetworkError("networks of Hugging Face need transformers: pip install 'hirelc[hf]'") from error
    return transformers


def _config(where: str) -> Any:
    transformers = _transformers()
    folder = Path(where).expanduser()
    if not folder.is_dir() and (where.startswith((".", "/", "~")) or where.count("/") > 1 or folder.exists()):
        raise NetworkError(f"hf:{where}: no such folder: give one with config.json, or an id on the hub, as in hf:owner/name")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise NetworkError(f"{folder}: there is no config.json: give a folder written by model.save_pretrained")
    try:
        config = transformers.AutoConfig.from_pretrained(
            str(folder) if folder.is_dir() else where, local_files_only=folder.is_dir(), trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise NetworkError(
            f"hf:{where}: its config.json cannot be used (code of its own is never run): {_line(error)}: give a folder "
            "written by model.save_pretrained, or an id on the hub"
        ) from error
    if getattr(config, "quantization_config", None) is not None:
        raise NetworkError(f"hf:{where}: its weights are quantized already: give the float weights")
    if hasattr(config, "use_cache"):
        config.use_cache = False  # a cache of keys and values is no output of the network
    return config


def _class(where: str, config: Any, task: str | None) -> Any:
    """The class of transformers to build."""
    transformers = _transformers()
    named = next(iter(config.architectures or ()), None)
    kind = getattr(transformers, named, None) if named else None
    if kind is not None and not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise NetworkError(
            f"hf:{where}: config.json names {named!r}, which is no network of transformers {transformers.__version__}"
        )
    if named and kind is None:
        raise NetworkError(f"hf:{where}: transformers {transformers.__version__} has no {named}: its own code is never run")
    fitting = _fitting(transformers, config, HEADS[task]) if task in HEADS else []
    if task in HEADS and not fitting:
        raise NetworkError(f"hf:{where}: a network of type {config.model_type} is not made for {task}: give another --task")
    if kind is None:
        plain = fitting or _fitting(transformers, config, "AutoModel")
        if not plain:
            raise NetworkError(
                f"hf:{where}: transformers {transformers.__version__} knows no network of type {config.model_type}"
            )
        return plain[0]
    if fitting and kind not in fitting:
        raise NetworkError(
            f"hf:{where}: config.json names {named}, but {task} needs {fitting[0].__name__}: train and save that, or give "
            "the --task of this one"
        )
    return kind


def _fitting(transformers: Any, config: Any, auto: str) -> list[Any]:
    """The classes that one of the Auto classes stands for, for this type of network."""
    mapping = getattr(transformers, auto)._model_mapping
    if type(config) not in mapping:
        return []
    found = mapping[type(config)]
    return list(found) if isinstance(found, tuple | list) else [found]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the bars and reports of transformers: what is wrong is raised, and the rest is nobody's news."""
    log = _transformers().logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _image_shape(config: Any, processor: dict[str, Any]) -> tuple[int, int, int] | None:
    channels = getattr(config, "num_channels", None)
    if not isinstance(channels, int):
        return None
    for size in (getattr(config, "image_size", None), processor.get("crop_size"), processor.get("size")):
        if isinstance(size, int) and not isinstance(size, bool):
            return channels, size, size
        if isinstance(size, tuple | list) and len(size) == 2:
            return channels, int(size[0]), int(size[1])
        if isinstance(size, dict) and {"height", "width"} <= set(size):
            return channels, int(size["height"]), int(size["width"])
        if isinstance(size, dict) and "shortest_edge" in size:
            return channels, int(size["shortest_edge"]), int(size["shortest_edge"])
    return None


def _json(where: str, name: str) -> dict[str, Any]:
    """A small file beside the configuration; empty where there is none."""
    folder = Path(where).expanduser()
    if folder.is_dir():
        path: str | None = str(folder / name) if (folder / name).is_file() else None
    else:
        from transformers.utils.hub import cached_file

        path = cached_file(where, name, _raise_exceptions_for_missing_entries=False)
    if path is None:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NetworkError(f"{path}: not readable as JSON: {error}: save the folder again") from error
    return found if isinstance(found, dict) else {}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
