"""Loads files of pretrained weights, written by several libraries."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ccd_lightning.errors import UserError
from ccd_lightning.models.weight_names import translations
from ccd_lightning.reading import check_regular
from ccd_lightning.writing import short_text

# Names of classifiers and pretraining heads: only these tensors of a file may be unused.
HEADS = (
    *("fc", "classifier", "head", "heads", "head_dist", "last_linear", "linear", "logits", "_fc", "pre_logits"),
    *("simclr_layer", "shift_cls_layer", "joint_distribution_layer", "projection_head", "prediction_head"),
)
SHOWN = 5  # number of mismatched tensors that a message lists


def read_tensors(path: Path) -> dict[str, Any]:
    """Loads a file of weights to the CPU, without running any code that it may contain.

    Args:
        path: Path of a torch (.pth, .pt, .ckpt, ...) or safetensors (.safetensors) file.

    Raises:
        UserError: If the file is damaged, or contains anything other than tensors and plain values.
    """
    try:
        _refuse_unfolding(path, check_regular(path).st_size)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and safetensors readers raise many kinds of errors
        raise UserError(f"{path}: not a readable checkpoint ({_reason(error)}). Give another file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: it holds a {type(content).__name__}, not a state_dict. Give a file that holds one.")
    return content


def _reason(error: Exception) -> str:
    """Returns a short reason why a file cannot be read; torch's own messages are long and about its options."""
    text = str(getattr(error, "strerror", None) or error)
    if isinstance(error, EOFError | KeyError) or "PytorchStreamReader" in text:
        return "it is damaged, or was cut off"
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of tensors, or holds more than tensors and plain values, which could run code"
    return short_text(text.partition(". ")[0].rstrip("."), 200) or type(error).__name__


def _refuse_unfolding(path: Path, size: int) -> None:
    """Checks for zip bombs: torch does not compress, so the members must not be larger than the archive.

    Raises:
        ValueError: If the members are larger than the archive.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            claimed = sum(part.file_size for part in archive.infolist())
        if claimed > size:
            raise ValueError(f"its parts claim {claimed:,} bytes, but the file has {size:,}")


def encoder_weights(content: Mapping[str, Any], network: nn.Module, path: Path) -> dict[str, Tensor]:
    """Extracts the tensors of a network from the content of a file, under the network's own names.

    The file may use names of timm, torchvision, lightly, efficientnet_pytorch, or an authors' release that timm
    converts, with any prefix such as `module.` or `backbone.`.

    Args:
        content: Content of the file.
        network: Network of timm without its classifier.
        path: Path of the file, used in error messages.

    Raises:
        UserError: If a tensor is missing, unused, of another shape or not finite. The message lists the first of them.
    """
    wanted = network.state_dict()
    best, most = None, -1
    for state in _states(content):
        for renamed in translations(state, network):
            whole = []  # prefixes that contain the complete network
            for prefix in _prefixes(renamed, wanted):
                found = {name.removeprefix(prefix): value for name, value in renamed.items() if name.startswith(prefix)}
                fitting = sum(name in found and found[name].shape == value.shape for name, value in wanted.items())
                whole += [prefix] * (fitting == len(wanted))
                if fitting > most:
                    best, most = found, fitting
            if len(whole) > 1:
                raise UserError(
                    f"{path}: {len(whole)} networks in it fit the encoder ({', '.join(whole)}). Save one of them alone."
                )
        if most == len(wanted):
            break
    if not best or not most:
        raise UserError(f"{path}: it holds none of the encoder's {len(wanted)} tensors. Is --model.encoder.name right?")
    for name in wanted.keys() - best.keys():
        if name.endswith("num_batches_tracked"):  # missing in older files, and not used
            best[name] = wanted[name]
    if wrong := _misfits(best, wanted):
        first = f", of which the first {SHOWN} are" if len(wrong) > SHOWN else ":"
        raise UserError(
            f"{path}: {len(wrong)} tensors do not fit the encoder{first} {', '.join(wrong[:SHOWN])}. Give the file's"
            " own architecture with --model.encoder.name, or another file."
        )
    return {name: best[name] for name in wanted}


def _misfits(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    wrong = [f"{name} (missing)" for name in wanted if name not in found]
    wrong += [
        f"{name} ({_shape(found[name])} instead of {_shape(value)})"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    wrong += [f"{name} (left over)" for name in found if name not in wanted and name.split(".")[0] not in HEADS]
    finite = (name for name in wanted if name in found and found[name].is_floating_point())
    return wrong + [f"{name} (not finite)" for name in finite if not bool(found[name].isfinite().all())]


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "scalar"


def _states(content: Mapping[str, Any], depth: int = 2) -> Iterator[dict[str, Tensor]]:
    """Yields the state dicts in a file's content, which libraries store under keys such as `state_dict`."""
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield tensors
    for _, value in sorted(content.items(), key=lambda item: "ema" not in str(item[0])):  # EMA weights first, like timm
        if isinstance(value, Mapping) and depth:
            yield from _states(value, depth - 1)


def _prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Returns possible prefixes of the network's names in a file: those of its first and last weight tensors."""
    ends = [name for name in wanted if name.endswith("weight")]
    found = [name.removesuffix(end) for end in (ends[0], ends[-1]) for name in state if f".{name}".endswith(f".{end}")]
    return sorted(dict.fromkeys(found), key=len)
