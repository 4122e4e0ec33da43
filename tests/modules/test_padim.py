import pytest
import torch

from ccd_lightning.errors import UserError
from ccd_lightning.models.patch_features import FeatureConfig
from ccd_lightning.modules.padim import PaDiM

pytestmark = pytest.mark.usefixtures("real_encoder")


@pytest.fixture
def detector() -> PaDiM:
    torch.manual_seed(0)
    detector = PaDiM(channels=20).eval()
    with torch.no_grad():
        for _ in range(3):
            detector.gaussian.update(detector.embed(torch.rand(10, 3, 64, 64)))
    detector.gaussian.fit()
    return detector


def test_embedding_stacks_three_layers_at_the_first_ones_resolution() -> None:
    detector = PaDiM(channels=448).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        embedding, levels = detector.embed(images), detector.encoder.maps(images)
    assert embedding.shape == (2, 448, 16, 16)
    assert torch.equal(embedding[:, :64], levels[0])
    assert torch.equal(embedding[:, 64:192, 4, 6], levels[1][:, :, 2, 3])  # both are centred on row 16, column 24
    assert torch.allclose(embedding[:, 64:192, 5, 7], levels[1][:, :, 2:4, 3:5].mean(dim=(2, 3)), atol=1e-6)
    assert torch.equal(embedding[:, 192:, 4, 8], levels[2][:, :, 1, 2])


def test_the_chosen_layers_are_used() -> None:
    detector = PaDiM(features=FeatureConfig(layers=(2, 3)), channels=384).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        embedding, levels = detector.embed(images), detector.encoder.maps(images)
        detector.gaussian.update(embedding)
        detector.gaussian.fit()
        _, maps = detector(images)
    assert embedding.shape == (2, 384, 8, 8)
    assert torch.equal(embedding[:, :128], levels[1])
    assert torch.equal(embedding[:, 128:, 4, 6], levels[2][:, :, 2, 3])
    assert maps.shape == (2, 64, 64)


@pytest.mark.parametrize("layers", [(), (-1, 1), (2, 1), (1, 1), (3, 5)])
def test_layers_that_do_not_exist_are_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(
        UserError, match=r"model\.features\.layers is .*, but must be some of 0 to 4, in ascending order"
    ):
        PaDiM(features=FeatureConfig(layers=layers))


def test_channels_are_drawn_by_the_seed() -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(PaDiM(channels=20).selected)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert len(set(drawn[0].tolist())) == 20


def test_score_is_the_maximum_of_the_map_and_independent_of_the_batch(detector: PaDiM) -> None:
    images = torch.rand(5, 3, 64, 64)
    with torch.no_grad():
        scores, maps = detector(images)
        alone = [detector(image[None]) for image in images]
    assert maps.shape == (5, 64, 64)
    assert torch.equal(scores, maps.amax(dim=(1, 2)))
    assert torch.allclose(scores, torch.cat([score for score, _ in alone]), rtol=1e-4)
    assert torch.allclose(maps, torch.cat([one for _, one in alone]), rtol=1e-4)


def test_another_size_than_that_of_the_fit_is_refused(detector: PaDiM) -> None:
    with pytest.raises(UserError, match=r"Images of 128 x 128 px do not fit this detector.* got 20 at 1024"):
        detector(torch.rand(1, 3, 128, 128))


def test_gaussians_of_features_that_an_older_version_stacked_are_refused(detector: PaDiM) -> None:
    checkpoint = {"state_dict": detector.state_dict()}
    with pytest.raises(UserError, match=r"fitted by an older version.* Fit it again"):
        detector.on_load_checkpoint(checkpoint)
    detector.on_save_checkpoint(checkpoint)
    detector.on_load_checkpoint(checkpoint)
