"""Both ways of making weak views draw from the same distributions; thresholds would tell a difference that matters."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.weak import WeakViews
from ccd_lightning.transforms.weak_draws import UNCHANGED, WeakSettings, draw_views, pack, unpack

SIDE, SIZE = 64, 24
SETTINGS = WeakSettings(SIZE, (0.2, 1.0), cutout_size=12)
SAME, OTHER = 1e-3, 1e-6  # p-values above and below which samples are of the same and of different distributions
Samples = dict[str, npt.NDArray[np.float64]]


class Untouched(nn.Module):
    """A family that shows the weak views alone: 32 of each image."""

    count = 16
    random = False

    def __init__(self, first: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.weak_first = first

    def forward(self, images: Tensor, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return images


def made(
    weak: Any, image: Tensor, settings: WeakSettings, first: tuple[str, ...] = (), count: int = 80
) -> npt.NDArray[np.float64]:
    """32 count views (N, 3, S, S) of an image in grey levels, made on the CPU or as on a device."""
    views = PretextViews(Untouched(first), patch_size=8, pairs=1, augment_on=weak)
    views.settings = settings
    items = [views(image, (0, 0, index)) for index in range(count)]
    if weak == "cpu":
        return np.concatenate([item["views"].flatten(0, 1).double().numpy() for item in items])
    batch = {
        "image": image.expand(count, -1, -1, -1),
        "augmentation": torch.stack([item["augmentation"] for item in items]),
        "draws": [item["draws"] for item in items],
    }
    on_device: Tensor = views.complete(batch)["views"]
    return on_device.flatten(0, 2).double().numpy() * 255


def crops(weak: Any, first: tuple[str, ...] = (), **change: Any) -> Samples:
    """Recovers the boxes from views of an image whose pixels say where they are."""
    line = 4 * torch.arange(SIDE, dtype=torch.uint8)
    image = torch.stack([*torch.meshgrid(line, line, indexing="ij"), torch.zeros(SIDE, SIDE, dtype=torch.uint8)])
    views = made(weak, image, replace(SETTINGS, jitter=0.0, grey=0.0, cutout_size=0, **change), first) / 4
    near, far = SIZE // 8, SIZE - SIZE // 8 - 1  # away from the border, where pixels stand for half of their width
    middle, found = SIZE // 2, {}
    for name, places in {"height": views[:, 0, :, middle], "width": views[:, 1, middle]}.items():
        step = (places[:, far] - places[:, near]) / (far - near)
        found[name] = np.rint(np.abs(step) * SIZE)  # whole pixels, which the rounding of grey levels blurs
        found[f"{name}_from"] = np.rint(places[:, [near, far]].min(axis=1) - (near + 0.5) * np.abs(step) + 0.5)
    return {
        "area": found["height"] * found["width"] / SIDE**2,
        "ratio": found["width"] / found["height"],
        "top": found["height_from"] / np.maximum(SIDE - found["height"], 1),
        "left": found["width_from"] / np.maximum(SIDE - found["width"], 1),
        "flipped": (step < 0).astype(float),
    }


def colours(weak: Any, **change: Any) -> Samples:
    """Recovers what was done to a colour from views of nothing else.

    Neither contrast nor saturation changes its luma, and of all operations only that on the hue changes its hue.
    """
    image = torch.tensor([140, 70, 100], dtype=torch.uint8).view(3, 1, 1).expand(-1, 16, 16).contiguous()
    views = made(weak, image, replace(SETTINGS, size=4, cutout_size=0, **change))[:, :, 0, 0]
    plain, greyed = np.all(np.abs(views - [140, 70, 100]) < 0.1, axis=1), np.ptp(views, axis=1) < 0.1
    coloured = views[~plain & ~greyed]
    red, green, blue = coloured.T
    return {
        "plain": plain.astype(float),
        "greyed": greyed.astype(float),
        "luma": coloured @ [0.299, 0.587, 0.114],
        "chroma": np.ptp(coloured, axis=1),
        "hue": np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue),
    }


def holes(weak: Any, **change: Any) -> Samples:
    """Finds the holes in views of a white image."""
    image = torch.full((3, 16, 16), 255, dtype=torch.uint8)
    dark = made(weak, image, replace(SETTINGS, **({"jitter": 0.0, "grey": 0.0} | change)))[:, 0] < 128
    rows, columns = np.any(dark, axis=2), np.any(dark, axis=1)
    assert np.array_equal(dark, rows[:, :, None] & columns[:, None, :])
    height, width = rows.sum(axis=1), columns.sum(axis=1)
    return {
        "height": height.astype(float),
        "width": width.astype(float),
        "top": rows.argmax(axis=1) / (SIZE - height + 1),
        "left": columns.argmax(axis=1) / (SIZE - width + 1),
    }


def different(first: Samples, second: Samples) -> dict[str, float]:
    """p-values of there being no difference: exact for shares, else of Kolmogorov and Smirnov."""
    values = {}
    for name, one in first.items():
        other = second[name]
        if set(one) | set(other) <= {0.0, 1.0}:
            table = [[(sample == value).sum() for value in (0, 1)] for sample in (one, other)]
            values[name] = float(stats.fisher_exact(table).pvalue)
        else:
            values[name] = float(stats.ks_2samp(one, other).pvalue)
    return values


@pytest.fixture(scope="module")
def expected() -> dict[Any, Samples]:
    return {measure: measure("cpu") for measure in (crops, colours, holes)}


@pytest.mark.parametrize("measure", [crops, colours, holes])
def test_device_and_cpu_draw_alike(measure: Any, expected: dict[Any, Samples]) -> None:
    values = different(expected[measure], measure("device"))
    assert min(values.values()) > SAME, values


@pytest.mark.parametrize("weak", ["cpu", "device"])
@pytest.mark.parametrize("first", [("flip",), ("crop", "flip"), ("crop",)])
def test_what_comes_before_the_family_is_drawn_alike(
    first: tuple[str, ...], weak: str, expected: dict[Any, Samples]
) -> None:
    values = different(expected[crops], crops(weak, first))
    assert min(values.values()) > SAME, values


@pytest.mark.parametrize(
    ("measure", "change", "telling"),
    [
        (crops, {"scale": (0.1, 1.0)}, ("area",)),
        (crops, {"scale": (0.2, 0.8)}, ("area",)),
        (crops, {"ratio": (0.9, 1.1)}, ("ratio",)),
        (crops, {"flip": 0.35}, ("flipped",)),
        (colours, {"jitter": 0.65}, ("plain",)),
        (colours, {"grey": 0.35}, ("greyed",)),
        (colours, {"strength": (0.7, 1.3)}, ("luma", "chroma")),
        (colours, {"hue": (-0.07, 0.07)}, ("hue",)),
        (holes, {"cutout_size": 10}, ("height", "width")),
    ],
)
def test_the_comparison_with_the_cpu_detects_other_settings(
    measure: Any, change: dict[str, Any], telling: tuple[str, ...], expected: dict[Any, Samples]
) -> None:
    values = different(expected[measure], measure("device", **change))
    assert all(values[name] < OTHER for name in telling), values


def test_factors_and_orders_are_albumentations() -> None:
    weak = WeakViews(replace(SETTINGS, size=4))
    drawn = []
    for seed in range(1500):
        weak.seed(seed)
        weak(np.zeros((8, 8, 3), np.uint8))
        if jitter := weak.compose.transforms[2].params:
            drawn.append(
                [*(jitter[name] for name in ("brightness", "contrast", "saturation", "hue")), *jitter["order"]]
            )
    theirs = np.array(drawn)
    views = draw_views(np.random.default_rng(0), 1500, 8, 8, SETTINGS)
    ours = np.hstack([views["factors"], views["order"]])[views["order"][:, 0] != UNCHANGED]
    for number in range(4):
        assert stats.ks_2samp(theirs[:, number], ours[:, number]).pvalue > SAME
    for sample in (theirs, ours):
        assert stats.chisquare(np.unique(sample[:, 4:], axis=0, return_counts=True)[1]).pvalue > SAME
    assert len(np.unique(ours[:, 4:], axis=0)) == 24


@pytest.mark.parametrize(("height", "width"), [(20, 100), (100, 20), (50, 50)])
def test_where_no_crop_fits_it_is_the_middle(height: int, width: int) -> None:
    """All of the area at a ratio that is not the image's: only the last resort is left."""
    settings = WeakSettings(4, (1.0, 1.0))
    (box,) = np.unique(draw_views(np.random.default_rng(0), 50, height, width, settings)["box"], axis=0)
    weak = WeakViews(settings)
    weak(np.zeros((height, width, 3), np.uint8))
    left, top, right, bottom = weak.compose.transforms[0].params["crop_coords"]
    assert box.tolist() == [top, left, bottom - top, right - left]


def test_packed_draws_are_unpacked_unchanged() -> None:
    views = draw_views(np.random.default_rng(0), 12, 64, 64, SETTINGS).reshape(2, 6)
    seeds, corners = [0, 2**63 - 1], [(0, 0), (224, 32)]
    records = unpack([pack(*parts) for parts in zip(seeds, corners, views, strict=True)], 6)
    assert records["seed"].tolist() == seeds
    assert records["corner"].tolist() == [list(corner) for corner in corners]
    assert np.array_equal(records["views"], views)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"size": 0}, "data.views.size is 0, but must be 1 or more"),
        ({"cutout_size": -1}, "data.views.cutout_size is -1, but must be 0 or more"),
        ({"scale": (0.0, 1.0)}, "data.views.scale is .*, but must be two numbers in ascending order"),
        ({"scale": (0.5, 0.2)}, "two numbers in ascending order"),
        ({"scale": (0.5, 1.1)}, "two numbers in ascending order"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        replace(SETTINGS, **wrong)
