"""The encoder that pretraining trains and detectors use: any timm network that returns feature maps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccd_lightning.errors import UserError
from ccd_lightning.grids import Grid, rescaled
from ccd_lightning.models.networks import create_network, levels_of, patch_size
from ccd_lightning.models.unit_grids import Size, trace_grid

DEFAULT = "resnet18"
# Weights "auto" prefers these to the default if their ImageNet weights are on this machine.
PREFERRED: tuple[str, ...] = ("tf_efficientnet_lite0",)


class Encoder(nn.Module):
    """A timm network without its classifier, for images in [0, 1].

    Images are normalised inside the encoder, with the mean and standard deviation from timm's configuration of the
    network. So checkpoints are self-contained. Weights are random until `load_state_dict` replaces them.

    Levels are numbered from 0 as in timm. For residual networks and EfficientNets, level 0 is the stem (stride 2),
    level 1 has stride 4, and so on. For ConvNeXt and Swin, level 0 has stride 4. For vision transformers, each block is
    a level with a stride of the patch size.

    Args:
        name: The network's name in timm, with or without the tag of pretrained weights, such as "resnet18",
            "resnet50.a1_in1k" or "vit_small_patch14_dinov2". It selects only the architecture.

    Attributes:
        channels: Number of channels of each level.
        strides: Stride of each level in pixels.
        features_size: Length F of an image's feature vector.
        default_levels: Levels that a detector uses by default: those of stride 4, 8 and 16, or for networks with one
            stride, those after a quarter, a half and three quarters of the depth.

    Raises:
        UserError: If timm has no such network, or the network returns no feature maps.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self.name = name or DEFAULT
        self.network = create_network(self.name)
        info = levels_of(self.network)
        self.channels = tuple(int(level["num_chs"]) for level in info)
        self.strides = tuple(int(level["reduction"]) for level in info)
        self.features_size = int(getattr(self.network, "head_hidden_size", None) or self.network.num_features)  # type: ignore[arg-type]
        self.is_transformer = len(self.strides) > 1 and len(set(self.strides)) == 1
        self.default_levels = self._default_levels()
        config: Any = self.network.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1))
        self._multiple = patch_size(self.network)
        self._grids: dict[tuple[Size, int], tuple[Grid, Grid]] = {}
        self._compiled: Callable[..., list[Tensor]] | None = None
        self.register_load_state_dict_post_hook(_forget_grids)  # type: ignore[no-untyped-call]

    def _default_levels(self) -> tuple[int, ...]:
        if self.is_transformer:
            depth = len(self.strides)
            return tuple(sorted({max(0, round(depth * share) - 1) for share in (0.25, 0.5, 0.75)}))
        found = tuple(index for index, stride in enumerate(self.strides) if stride in (4, 8, 16))
        return found or (len(self.strides) - 1,)

    def normalise(self, images: Tensor) -> Tensor:
        """Normalises images (B, 3, H, W) in [0, 1] with the mean and standard deviation that the network expects."""
        return (images - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        """Returns feature vectors (B, F) of images in [0, 1]: (B, 3, H, W), or (B, 1, H, W) for grey images."""
        vectors: Tensor = self.network(self._prepared(images))
        return vectors

    def forward(self, images: Tensor) -> Tensor:
        """Same as `features`."""
        return self.features(images)

    def maps(self, images: Tensor, levels: Sequence[int] | None = None) -> list[Tensor]:
        """Returns the feature maps of the given levels.

        Args:
            images: Images in [0, 1]: (B, 3, H, W), or (B, 1, H, W) for grey images.
            levels: Level numbers in ascending order; None for `default_levels`.

        Returns:
            One tensor (B, C, h, w) per level, with C from `channels`. `grids` returns the positions of the units in the
            image.
        """
        chosen = list(self.default_levels if levels is None else levels)
        forward: Any = self._compiled or self.network.forward_intermediates
        maps: list[Tensor] = forward(
            self._prepared(images),
            indices=chosen,
            norm=self.is_transformer,  # blocks add to one residual stream, which only the final norm rescales
            stop_early=True,
            intermediates_only=True,
        )
        return maps

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the network with `torch.compile`, with its arguments. `features` and `maps` then run compiled."""
        self.network.compile(*args, **kwargs)
        forward: Any = self.network.forward_intermediates
        self._compiled = torch.compile(forward, *args, **kwargs)

    @property
    def is_compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._compiled is not None

    def grids(self, size: Size, levels: Sequence[int] | None = None) -> list[tuple[Grid, Grid]]:
        """Returns the grids (rows, columns) of the units of each level in images of the given size (H, W)."""
        chosen = self.default_levels if levels is None else levels
        if missing := [level for level in chosen if (size, level) not in self._grids]:
            shapes = copy.deepcopy(self.network).to("meta")
            network_size = self._network_size(size)
            scales = [own / seen for own, seen in zip(size, network_size, strict=True)]
            for level in missing:
                traced, channels = trace_grid(self.network, shapes, network_size, level, self.is_transformer)
                if channels != self.channels[level]:
                    raise ValueError(f"level {level} has {channels} channels, not {self.channels[level]}")
                rows, columns = (rescaled(grid, scale) for grid, scale in zip(traced, scales, strict=True))
                self._grids[size, level] = rows, columns
        return [self._grids[size, level] for level in chosen]

    def load_network(self, state: Mapping[str, Tensor]) -> None:
        """Loads all weights of the network; `state` uses timm's names."""
        self.load_state_dict({"mean": self.mean, "std": self.std} | {f"network.{name}": state[name] for name in state})

    def check_size(self, size: int | Size, option: str = "data.size") -> None:
        """Checks that the network accepts images of the given size.

        Args:
            size: Height and width in pixels, or the side of a square.
            option: Name of the option that sets the size, used in error messages.

        Raises:
            UserError: If the network does not accept images of this size.
        """
        height, width = (size, size) if isinstance(size, int) else size
        try:
            self.grids((height, width), [*self.default_levels, len(self.channels) - 1])  # the whole network
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{option} is {height if height == width else [height, width]}, but the encoder {self.name} cannot take"
                f" images of {height} x {width} px ({reason})."
                f" Give another --{option} or --model.encoder.name."
            ) from error

    def settings(self) -> dict[str, str]:
        """Returns the settings that a checkpoint stores to rebuild the encoder."""
        return {"name": self.name}

    def parameters_up_to(self, level: int) -> list[nn.Parameter]:
        """Returns the parameters that the map of a level depends on: those of the stem and of all levels up to it."""
        config: Any = self.network.pretrained_cfg
        image = torch.zeros(1, *config.get("input_size", (3, 64, 64)), device=self.mean.device)
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        forward: Any = self.network.forward_intermediates
        with torch.enable_grad(), _evaluating(self):  # without the final norm, which all levels share
            total = forward(image, indices=[level], norm=False, stop_early=True, intermediates_only=True)[0].sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        return [own for own, gradient in zip(parameters, gradients, strict=True) if gradient is not None]

    def _prepared(self, images: Tensor) -> Tensor:
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        size, wanted = (images.shape[-2], images.shape[-1]), self._network_size((images.shape[-2], images.shape[-1]))
        if wanted != size:
            images = functional.interpolate(images, wanted, mode="bilinear", align_corners=False)
        images = self.normalise(images)
        if images.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_exporting():
            return images.contiguous(memory_format=torch.channels_last)  # convolutions run a third faster
        return images

    def _network_size(self, size: Size) -> Size:
        """Rounds the size up to a multiple of the patch size."""
        rows, columns = (-(-length // self._multiple) * self._multiple for length in size)
        return rows, columns


def _forget_grids(encoder: Encoder, _: Any) -> None:
    """Clears the cached grids, which depend on the weights."""
    encoder._grids.clear()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode inside the context and restores the mode of each submodule afterwards."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
