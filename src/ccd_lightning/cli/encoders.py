"""`ccd encoders`: lists networks that can be used as an encoder."""

from __future__ import annotations

from ccd_lightning.cli.arguments import Arguments
from ccd_lightning.errors import UserError
from ccd_lightning.text_tables import print_table

# Networks that are tested with pretraining, detectors and export, from small to large.
TESTED = (
    *("tf_efficientnet_lite0", "resnet18", "vit_small_patch14_dinov2", "resnet50", "convnext_tiny"),
    *("swin_tiny_patch4_window7_224", "wide_resnet50_2"),
)
MAX_SHOWN = 60  # maximum number of networks described at once, as each must be built


def run_encoders(argv: list[str]) -> None:
    """Prints a table of networks, or the levels of a single network.

    Raises:
        UserError: If timm has no network with this name or pattern.
    """
    pattern = _parser().parse_args(argv).pattern
    import timm
    from rich.progress import track

    if pattern == "":
        raise UserError("The name is empty. Give one, or a pattern with stars, or leave it out.")
    names = list(TESTED) if pattern is None else [pattern] if timm.is_model(pattern) else timm.list_models(pattern)
    if not names:
        raise UserError(f"timm has no network {pattern!r}. Give a pattern with stars: ccd encoders '*{pattern}*'")
    if len(names) > MAX_SHOWN:
        print("\n".join(names))
        print(
            f"\n{len(names)} networks. A pattern with at most {MAX_SHOWN} of them shows their parameters and strides."
        )
        return
    rows = [_describe(name) for name in track(names, "networks", transient=True)]
    print_table(["name", "million", "features", "strides (px)", "ImageNet"], rows, whole=(0, 3))
    if len(rows) == 1:
        _print_levels(names[0])
    elif pattern is None:
        print("\nThese are tested. Others: ccd encoders '*PATTERN*'")
    print(f"\nUse one: ccd fit --config ccd_folder --data.root DIR --model.encoder.name {names[0]}")


def _parser() -> Arguments:
    parser = Arguments(
        prog="ccd encoders",
        description="List the networks that --model.encoder.name takes: all of timm that give feature maps.",
        epilog="Weights: 'here' are on this machine; others are downloaded for --model.encoder.weights imagenet, or"
        " given as a file with --model.encoder.weights FILE.",
    )
    parser.add_argument(
        "pattern", nargs="?", help="a name, or a quoted pattern such as '*dinov2*'; default: the tested ones"
    )
    return parser


def _describe(name: str) -> list[str]:
    """Returns a row of the table. The network is built without weights."""
    import torch

    from ccd_lightning.models.encoder import Encoder
    from ccd_lightning.models.imagenet import has_pretrained, local_weights

    try:
        with torch.device("meta"):
            encoder = Encoder(name)
    except UserError:
        return [name, "", "", "no feature maps", ""]
    weights = "here" if local_weights(name) else "download" if has_pretrained(name) else "none"
    millions = sum(parameter.numel() for parameter in encoder.network.parameters()) / 1e6
    strides = (
        f"{encoder.strides[0]}, {len(encoder.strides)} times" if encoder.is_transformer else _listed(encoder.strides)
    )
    return [name, f"{millions:.1f}", str(encoder.features_size), strides, weights]


def _print_levels(name: str) -> None:
    import torch

    from ccd_lightning.models.encoder import Encoder

    with torch.device("meta"):
        encoder = Encoder(name)
    rows = [
        [str(level), str(stride), str(channels), "yes" * (level in encoder.default_levels)]
        for level, (stride, channels) in enumerate(zip(encoder.strides, encoder.channels, strict=True))
    ]
    print()
    print_table(["level", "stride (px)", "channels", "default of model.features.layers"], rows)


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
