import pytest
import torch

from ccd_lightning.models.igd.networks import Critic, Decoder, channels


def test_channels_double_with_each_halving_up_to_8_times() -> None:
    assert channels(256, 32) == [256, 256, 256, 256, 128, 64, 32]
    assert channels(8, 16) == [32, 16]


@pytest.mark.parametrize("size", [8, 32, 128])
def test_decoder_and_critic_have_the_right_shapes_and_ranges(size: int) -> None:
    images = Decoder(size, 8, 16)(10 * torch.randn(3, 16)).detach()
    assert images.shape == (3, 3, size, size)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert Critic(size, 8)(images).shape == (3,)


@pytest.mark.parametrize(
    ("size", "width", "message"), [(48, 8, "48 px"), (4, 8, "4 px"), (0, 8, "0 px"), (32, 12, "width of 12")]
)
def test_impossible_sizes_and_widths_are_refused(size: int, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoder(size, width, 16)


def test_every_weight_gets_a_gradient_and_images_are_independent() -> None:
    torch.manual_seed(0)
    decoder, critic, latent = Decoder(16, 8, 16), Critic(16, 8), torch.randn(5, 16)
    judged = critic(decoder(latent))
    judged.square().sum().backward()
    for parameter in [*decoder.parameters(), *critic.parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    assert torch.allclose(judged[2], critic(decoder(latent[2:3]))[0], atol=1e-6)
