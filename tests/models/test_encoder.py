from collections.abc import Sequence
from contextlib import nullcontext

import pytest
import torch
from torchvision.models import resnet18
from torchvision.transforms.functional import normalize

from ccd_lightning.errors import UserError
from ccd_lightning.models.encoder import Encoder

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# Small relatives of the networks that users bring, of timm's own tests, and the tiny encoder of these.
SMALL = ("tiny_resnet", "test_resnet", "test_efficientnet", "test_convnext", "test_vit", "tf_efficientnet_lite0")


@pytest.mark.usefixtures("real_encoder")
def test_the_default_is_torchvisions_network_with_its_normalisation() -> None:
    network = resnet18().eval()
    encoder = Encoder().eval()
    encoder.network.load_state_dict({name: value for name, value in network.state_dict().items() if name[:2] != "fc"})
    network.fc = torch.nn.Identity()
    images = torch.rand(2, 3, 64, 64)
    assert torch.allclose(encoder.features(images), network(normalize(images, MEAN, STD)), atol=1e-5)


@pytest.mark.usefixtures("real_encoder")
def test_levels_of_the_default() -> None:
    encoder = Encoder().eval()
    assert (encoder.name, encoder.features_size) == ("resnet18", 512)
    assert (encoder.channels, encoder.strides) == ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32))
    maps = encoder.maps(torch.rand(2, 3, 64, 96))
    assert [tuple(level.shape) for level in maps] == [(2, 64, 16, 24), (2, 128, 8, 12), (2, 256, 4, 6)]


def test_last_batch_norm_of_untrained_residual_blocks_is_not_zero() -> None:
    network = Encoder("resnet18").network
    assert all(bool((value == 1).all()) for name, value in network.named_parameters() if name.endswith("bn2.weight"))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_channels_strides_and_features_are_as_described(name: str, size: tuple[int, int]) -> None:
    encoder = Encoder(name).eval()
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        maps, features = encoder.maps(images, range(len(encoder.channels))), encoder.features(images)
    assert features.shape == (2, encoder.features_size)
    shapes = [(2, channels, *(side // stride for side in size)) for channels, stride in described(encoder)]
    assert [tuple(level.shape) for level in maps] == shapes


def described(encoder: Encoder) -> Sequence[tuple[int, int]]:
    return list(zip(encoder.channels, encoder.strides, strict=True))


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("tiny_resnet", (1, 2, 3)),
        ("test_convnext", (0, 1, 2)),
        ("test_efficientnet", (1, 2, 3)),
        ("test_vit", (1, 2, 3)),
    ],
)
def test_default_levels(name: str, levels: tuple[int, ...]) -> None:
    encoder = Encoder(name)
    if encoder.is_transformer:
        depth = len(encoder.strides)
        levels = tuple(sorted({round(depth * share) - 1 for share in (0.25, 0.5, 0.75)}))
    assert encoder.default_levels == levels


def test_grey_images_are_those_with_three_equal_channels() -> None:
    encoder, grey = Encoder().eval(), torch.rand(2, 1, 64, 64)
    assert torch.equal(encoder.features(grey), encoder.features(grey.expand(-1, 3, -1, -1)))
    assert torch.equal(encoder.maps(grey)[0], encoder.maps(grey.expand(-1, 3, -1, -1))[0])


def test_each_network_gets_the_range_that_it_expects() -> None:
    black, white = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    lite = Encoder("tf_efficientnet_lite0")
    assert (float(lite.normalise(black).min()), float(lite.normalise(white).max())) == (-1, 1)
    residual = Encoder("resnet18").normalise(black).flatten()
    assert torch.allclose(residual, -torch.tensor(MEAN) / torch.tensor(STD))


def test_images_that_patches_do_not_fill_are_resized() -> None:
    encoder, images = Encoder("test_vit").eval(), torch.rand(1, 3, 70, 60)
    (level,) = encoder.maps(images, [0])
    assert level.shape[-2:] == (5, 4)  # patches of 16 px
    rows, columns = encoder.grids((70, 60), [0])[0]
    assert (rows.stride, columns.stride) == (16 * 70 / 80, 16 * 60 / 64)
    assert rows.offset + 4 * rows.stride == pytest.approx(
        69 - rows.offset
    )  # as far from the last edge as from the first


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"'resnet19', which timm does not have\. Similar: .*resnet18"),
        ("resnet18.of_nowhere", "tag"),
        ("hf-hub:someone/anything", "which timm does not have"),
        ("local-dir:/anywhere", "which timm does not have"),
    ],
)
def test_unknown_networks_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"model\.encoder\.name is .*{message}"):
        Encoder(name)


def test_sizes_that_a_network_cannot_take_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.views\.size is 96, but the encoder levit_128 cannot take"):
        Encoder("levit_128").check_size(96, "data.views.size")


@pytest.mark.parametrize("name", SMALL)
def test_parameters_up_to_a_level_change_its_map_and_no_others_do(name: str) -> None:
    encoder, images = Encoder(name), torch.rand(2, 3, 64, 64)
    level = encoder.default_levels[0]
    encoder.train()
    own = {id(parameter) for parameter in encoder.parameters_up_to(level)}
    assert encoder.training
    assert 0 < len(own) < len(list(encoder.parameters()))
    encoder.eval()
    with torch.no_grad():
        before = encoder.maps(images, [level])[0]
        for key, parameter in encoder.network.named_parameters():
            if id(parameter) not in own and not key.startswith("norm."):  # the last norm, of all levels' maps
                parameter.add_(torch.randn_like(parameter))
        assert torch.equal(encoder.maps(images, [level])[0], before)


def test_a_level_of_a_transformer_does_not_have_the_last_norm() -> None:
    encoder = Encoder("test_vit")
    names = {id(parameter): name for name, parameter in encoder.network.named_parameters()}
    assert not any(names[id(own)].startswith("norm.") for own in encoder.parameters_up_to(0))


@pytest.mark.parametrize("name", ["fastvit_t8", "ghostnetv3_050", "beit_base_patch16_224"])
def test_other_networks_are_taken_or_refused_in_a_sentence(name: str) -> None:
    takes = name != "beit_base_patch16_224"
    with nullcontext() if takes else pytest.raises(UserError, match="cannot take images of 96 x 96 px"):
        Encoder(name).check_size(96)
