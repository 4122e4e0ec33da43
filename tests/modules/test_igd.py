from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.errors import UserError
from ccd_lightning.losses.igd import gaussian_score, reconstruction_errors
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.igd.descriptor import Descriptor
from ccd_lightning.models.igd.latents import LatentGaussian, partners
from ccd_lightning.models.igd.settings import Scale, Training, WindowScale
from ccd_lightning.modules.igd import IGD

QUIET: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)


def small(**changes: Any) -> IGD:
    torch.manual_seed(0)
    whole = Scale(size=64, width=8)
    local = WindowScale(size=32, width=8, stride=16, windows_per_image=3)
    options: dict[str, Any] = {"global_scale": whole, "local_scale": local, "latent_size": 16}
    return IGD(**options | changes)


@pytest.fixture
def detector() -> IGD:
    detector = small().eval()
    for part in (detector.whole, detector.local):
        part.gaussian.scale.fill_(3.0)
    return detector


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(32, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_scores_and_maps_are_those_of_loops(detector: IGD, images: torch.Tensor) -> None:
    normalise = detector.encoder.normalise
    with torch.no_grad():
        for image in images[:3]:
            expected, total = 0.0, torch.zeros(64, 64)
            for descriptor, encoder, side in (
                (detector.whole, detector.encoder, 64),
                (detector.local, detector.local_encoder, 32),
            ):
                settings, highest = descriptor.settings, 0.0
                assert descriptor.window == 3
                summed, times = torch.zeros(64, 64), torch.zeros(64, 64)
                for top in range(0, 64 - side + 1, 16):
                    for left in range(0, 64 - side + 1, 16):
                        place = slice(top, top + side), slice(left, left + side)
                        window = image[None, :, place[0], place[1]]
                        latent = descriptor.latent(encoder.features(window))
                        errors, maps = reconstruction_errors(
                            normalise(window),
                            normalise(descriptor.decoder(latent)),
                            descriptor.window,
                            settings.ssim_weights,
                        )
                        distance = gaussian_score(latent, descriptor.gaussian.centre, torch.tensor(3.0))
                        share = 0.9 if side == 64 else 0.1  # the published ones
                        highest = max(highest, float((1 - share) * errors + share * distance))
                        summed[place] += maps[0]
                        times[place] += 1
                expected += 0.5 * highest
                total += 0.5 * summed / times
            scores, maps = detector(image[None])
            assert float(scores) == pytest.approx(expected, abs=1e-5)
            assert torch.allclose(maps[0], total, atol=1e-5)


@pytest.mark.parametrize("name", ["whole", "local"])
def test_distant_images_and_windows_have_different_scores(name: str, detector: IGD, images: torch.Tensor) -> None:
    scales = {"whole": (detector.whole, detector.encoder), "local": (detector.local, detector.local_encoder)}
    descriptor, encoder = scales[name]
    descriptor.settings.gaussian = 1.0
    descriptor.gaussian.scale.fill_(1e-4)
    with torch.no_grad():
        scores, _ = descriptor.score(encoder, images)
        views = descriptor.estimation_views(images)
        latents = descriptor.latent(encoder.features(views)) - descriptor.gaussian.centre
        farthest = latents.square().sum(dim=1).view(len(images), -1).amax(dim=1)
    assert farthest.min() > 20 * 1e-4
    assert scores.min() > 1
    assert torch.equal(scores.argsort(), farthest.argsort())


def test_scores_do_not_depend_on_batch_and_chunk_size(detector: IGD, images: torch.Tensor) -> None:
    with torch.no_grad():
        scores, maps = detector(images)
        for chunk, batch in ((512, 1), (3, 32), (1, 5), (20, 32)):
            detector.local_scale.chunk_size = chunk
            parts = [detector(part) for part in torch.split(images, batch)]
            assert torch.allclose(scores, torch.cat([part for part, _ in parts]), atol=1e-5)
            assert torch.allclose(maps, torch.cat([part for _, part in parts]), atol=1e-5)
    detector.local_scale.chunk_size = 512
    assert maps.shape == (32, 64, 64)
    assert float(maps.min()) >= 0


def test_memory_is_bounded_by_the_chunk_size(
    detector: IGD, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many windows there are, here 9 of each image."""
    seen: list[int] = []
    score = Descriptor.score

    def watched(self: Descriptor, encoder: Encoder, views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(views))
        return score(self, encoder, views)

    monkeypatch.setattr(Descriptor, "score", watched)
    with torch.no_grad():
        for chunk, count, most in ((20, 32, 18), (20, 1, 9), (7, 2, 6), (1, 2, 3)):  # at least a row of 3
            seen.clear()
            monkeypatch.setattr(detector.local_scale, "chunk_size", chunk)
            detector.local.score(detector.local_encoder, images[:count])
            assert max(seen) == most
            assert sum(seen) == 9 * count


def test_a_scale_can_be_left_out(images: torch.Tensor) -> None:
    both = small().eval()
    for part in (both.whole, both.local):
        part.gaussian.scale.fill_(3.0)
    with torch.no_grad():
        parts = []
        for name in ("global_scale", "local_scale"):
            settings = Scale(64, 8, 0.0) if name == "global_scale" else WindowScale(32, 8, 0.0)
            alone = small(**{name: settings}).eval()
            alone.load_state_dict(both.state_dict())
            parts.append(alone(images[:2]))
        scores, maps = both(images[:2])
    assert torch.allclose(scores, parts[0][0] + parts[1][0])
    assert torch.allclose(maps, parts[0][1] + parts[1][1])


def test_one_step_equals_that_of_separate_optimisers() -> None:
    """The losses of a critic and of all else, each by its own optimiser, as the paper has it."""
    torch.manual_seed(0)
    descriptor, encoder = Descriptor(Scale(16, 8), Encoder().features_size, 16, "x"), Encoder().eval()
    descriptor.gaussian.scale.fill_(3.0)
    images, alpha = torch.rand(4, 3, 16, 16), torch.rand(4) / 2
    others = [parameter for name, parameter in descriptor.named_parameters() if "critic" not in name]
    losses = descriptor.losses(encoder, images, alpha, lambda latent: latent.flip(0))
    main = losses["reconstruction"] + losses["gaussian"] + 0.1 * losses["interpolation"]
    critics = list(descriptor.critic.parameters())
    wanted = [
        *torch.autograd.grad(main, others, retain_graph=True),
        *torch.autograd.grad(losses["critic"], critics, retain_graph=True),
    ]
    (main + losses["critic"]).backward()
    found = [parameter.grad for parameter in [*others, *critics]]
    for gradient, expected in zip(found, wanted, strict=True):
        assert gradient is not None
        assert torch.allclose(gradient, expected, atol=1e-7)
        assert expected.abs().sum() > 0
    # The interpolations are judged, not only reconstructions.
    assert all(
        gradient.abs().sum() > 0
        for gradient in torch.autograd.grad(
            descriptor.losses(encoder, images, alpha, lambda latent: latent.flip(0))["interpolation"],
            list(descriptor.decoder.parameters()),
        )
    )


def test_partners_are_the_flipped_batch() -> None:
    latent = torch.arange(12.0).view(6, 2)
    assert torch.equal(partners(latent, torch.arange(3)), latent.flip(0))  # two windows of each of three images


def fitted(folder: Path, **changes: Any) -> tuple[IGD, Trainer]:
    data = AnomalyDataModule(str(folder), size=64, batch_size=5)
    module = small(**changes)
    options: dict[str, Any] = QUIET | {"num_sanity_val_steps": 0, "use_distributed_sampler": False}
    trainer = Trainer(accelerator="cpu", max_epochs=2, **options)
    trainer.fit(module, datamodule=data)
    return module, trainer


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
def test_the_same_seed_gives_the_same_weights(folder: Path) -> None:
    first, second = (fitted(folder)[0].state_dict() for _ in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mirror", [False, True])
def test_images_are_mirrored_in_training_where_asked_for(
    folder: Path, mirror: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    step, views = IGD.training_step, Descriptor.training_views

    def watched_step(self: IGD, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        given.append(batch["image"])
        return step(self, batch, batch_idx)

    def watched_views(self: Descriptor, images: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(images)
        return views(self, images, *rest)

    monkeypatch.setattr(IGD, "training_step", watched_step)
    monkeypatch.setattr(Descriptor, "training_views", watched_views)
    fitted(folder, training=Training(mirror=mirror))
    pairs = [pair for before, after in zip(given, seen, strict=True) for pair in zip(before, after, strict=True)]
    flipped = [torch.equal(after, before.flip(-1)) for before, after in pairs]
    assert all(flip or torch.equal(*pair) for flip, pair in zip(flipped, pairs, strict=True))
    assert (0 < sum(flipped) < len(flipped)) == mirror


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fine_tune", [False, True])
def test_encoders_are_frozen_or_tuned(folder: Path, fine_tune: bool) -> None:
    before = small().state_dict()
    module, trainer = fitted(folder, training=Training(estimate_every=1, fine_tune=fine_tune))
    after = module.state_dict()
    for name in ("encoder", "local_encoder"):
        weight, running = f"{name}.network.layer1.0.conv1.weight", f"{name}.network.layer1.0.bn1.running_mean"
        assert torch.equal(before[weight], after[weight]) != fine_tune
        assert torch.equal(before[running], after[running])
    groups = trainer.optimizers[0].param_groups
    assert [group["weight_decay"] for group in groups] == [1e-6, 0.0]
    assert len(groups[1]["params"]) == sum("critic" in name for name, _ in module.named_parameters())
    assert all(group["lr"] < 1e-9 for group in groups)  # the polynomial's end
    for name in ("whole", "local"):
        changed = {key for key, value in after.items() if key.startswith(name) and not torch.equal(value, before[key])}
        assert {f"{name}.latent.weight", f"{name}.critic.first.weight", f"{name}.gaussian.centre"} <= changed


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped(folder: Path, precision: Any) -> None:
    norms: list[tuple[float, float]] = []

    class Watched(IGD):
        def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            before = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
            super().configure_gradient_clipping(optimizer, *args, **kwargs)
            after = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
            norms.append((float(before), float(after)))

    torch.manual_seed(0)
    module = Watched(global_scale=Scale(64, 8), local_scale=WindowScale(32, 8, windows_per_image=2))
    options: dict[str, Any] = QUIET | {"use_distributed_sampler": False, "limit_val_batches": 0}
    trainer = Trainer(accelerator="cpu", max_epochs=1, precision=precision, gradient_clip_val=0.01, **options)
    trainer.fit(module, datamodule=AnomalyDataModule(str(folder), size=64, batch_size=5))
    assert len(norms) == trainer.global_step > 1
    for before, after in norms:
        assert before > 0.01
        assert after == pytest.approx(0.01, rel=1e-3)


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
def test_centre_and_scale_are_those_of_the_training_images(folder: Path) -> None:
    seen: dict[str, torch.Tensor] = {}

    class Watched(IGD):
        def on_train_epoch_start(self) -> None:
            super().on_train_epoch_start()
            if self.current_epoch == 0:
                images = torch.cat([images.pixels for images in self._data.normal_images(self.device)[0]])
                with torch.no_grad():
                    places = [(top, left) for top in (0, 16, 32) for left in (0, 16, 32)]
                    cut = [images[:, :, top : top + 32, left : left + 32] for top, left in places]
                    seen["whole"] = self.whole.latent(self.encoder.features(images))
                    seen["local"] = self.local.latent(self.local_encoder.features(torch.cat(cut)))

    torch.manual_seed(0)
    module: LightningModule = Watched(
        global_scale=Scale(64, 8),
        local_scale=WindowScale(32, 8, windows_per_image=3, chunk_size=7),
        training=Training(estimate_every=10),
    )
    trainer = Trainer(accelerator="cpu", max_epochs=2, limit_val_batches=0, use_distributed_sampler=False, **QUIET)
    trainer.fit(module, datamodule=AnomalyDataModule(str(folder), size=64, batch_size=4))
    for name, latents in seen.items():
        mean, gaussian = latents.mean(dim=0), module.get_submodule(name).gaussian
        assert isinstance(gaussian, LatentGaussian)
        far = mean.abs() > 0.1
        assert far.any()
        assert torch.allclose(gaussian.centre[far], mean[far], atol=1e-5)
        assert (gaussian.centre.abs() > 0.0999).all()
        distances = (latents - gaussian.centre).square().sum(dim=1).clamp(min=1)
        assert float(gaussian.scale) == pytest.approx(float(distances.mean()), rel=1e-4)


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
def test_the_loss_of_a_step_is_that_of_the_paper(folder: Path) -> None:
    """From the formulas, with the images, windows and alphas that a step drew."""
    seen: dict[str, Any] = {}

    class Watched(IGD):
        def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
            seen["expected"] = by_the_paper(self, batch["image"])
            seen["found"] = super().training_step(batch, batch_idx).detach()
            return super().training_step(batch, batch_idx)

    def by_the_paper(module: IGD, images: torch.Tensor) -> torch.Tensor:
        rng = np.random.default_rng((0, 0, 0))
        alpha = torch.from_numpy(rng.uniform(0, 0.5, (len(images), 1))).float()[:, 0]
        place = rng.integers(9, size=(len(images), 2))
        tops, lefts = place // 3 * 16, place % 3 * 16
        cut = [image[:, tops[i, k] :, lefts[i, k] :][:, :32, :32] for i, image in enumerate(images) for k in range(2)]
        local_alpha = torch.from_numpy(rng.uniform(0, 0.5, (len(images), 2))).float().flatten()
        total = torch.zeros(())
        for descriptor, encoder, shown, alphas in (
            (module.whole, module.encoder, images, alpha),
            (module.local, module.local_encoder, torch.stack(cut), local_alpha),
        ):
            z = descriptor.latent(encoder.features(shown))
            x, made = encoder.normalise(shown), encoder.normalise(descriptor.decoder(z))
            weights = descriptor.settings.ssim_weights
            total = total + reconstruction_errors(x, made, descriptor.window, weights)[0].mean()
            centre, sigma = descriptor.gaussian.centre, descriptor.gaussian.scale
            total = total + (1 - torch.exp(-((z - centre) ** 2).sum(dim=1) / sigma)).mean()
            mixed = alphas[:, None] * z + (1 - alphas[:, None]) * z.flip(0)
            judged = descriptor.critic(encoder.normalise(descriptor.decoder(mixed)))
            blended = descriptor.critic(made + 0.2 * (x - made))
            total = total + 0.1 * (judged**2).mean() + ((judged - alphas) ** 2).mean() + (blended**2).mean()
        return total.detach()

    torch.manual_seed(0)
    module = Watched(global_scale=Scale(64, 8), local_scale=WindowScale(32, 8, windows_per_image=2))
    trainer = Trainer(accelerator="cpu", max_steps=1, limit_val_batches=0, use_distributed_sampler=False, **QUIET)
    trainer.fit(module, datamodule=AnomalyDataModule(str(folder), size=64, batch_size=4))
    assert float(seen["found"]) == pytest.approx(float(seen["expected"]), rel=1e-5)


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fine_tune", [False, True])
def test_whitened_latents_are_found_once_and_stay(folder: Path, fine_tune: bool) -> None:
    before, seen = small().state_dict(), []

    class Watched(IGD):
        def on_train_epoch_start(self) -> None:
            super().on_train_epoch_start()
            seen.append({name: value.clone() for name, value in self.state_dict().items()})
            if self.current_epoch == 0:
                images = torch.cat([images.pixels for images in self._data.normal_images(self.device)[0]])
                with torch.no_grad():
                    latents = self.whole.latent(self.encoder.features(images))
                found = latents.var(dim=0, correction=0)
                assert torch.allclose(found[:2], torch.ones(2), atol=0.01)
                assert ((found - 1).abs().min(found) < 0.05).all()  # there are more latents than images: some are 0
                assert float(self.whole.gaussian.centre.abs().max()) < 1e-3
                expected = latents.square().sum(dim=1).clamp(min=1).mean()
                assert float(self.whole.gaussian.scale) == pytest.approx(float(expected), rel=1e-3)

    scales: dict[str, Any] = {"global_scale": Scale(64, 8), "local_scale": WindowScale(32, 8, windows_per_image=3)}
    training = Training(estimate_every=1, fine_tune=fine_tune)
    module = Watched(**scales, latent_size=16, whitened=True, training=training)
    options: dict[str, Any] = QUIET | {"num_sanity_val_steps": 0, "use_distributed_sampler": False}
    trainer = Trainer(accelerator="cpu", max_epochs=2, **options)
    with pytest.warns(match=r"have \d+ components for the 16 latents of model\.global_scale, .*--model\.latent_size"):
        trainer.fit(module, datamodule=AnomalyDataModule(str(folder), size=64, batch_size=5))
    after = module.state_dict()
    for name in ("whole", "local"):
        assert not torch.equal(before[f"{name}.latent.weight"], after[f"{name}.latent.weight"])
        assert torch.equal(seen[0][f"{name}.latent.weight"], after[f"{name}.latent.weight"])
        assert torch.equal(seen[0][f"{name}.gaussian.scale"], after[f"{name}.gaussian.scale"]) != fine_tune


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
def test_without_interpolation_there_is_no_critic(folder: Path) -> None:
    before = small().state_dict()
    module, trainer = fitted(folder, training=Training(interpolation=0))
    after = module.state_dict()
    assert len(trainer.optimizers[0].param_groups) == 1
    assert {key for key, value in after.items() if "critic" in key and not torch.equal(value, before[key])} == set()
    assert not torch.equal(after["whole.decoder.first.weight"], before["whole.decoder.first.weight"])
    assert "train/global_scale/critic" not in trainer.callback_metrics


def test_what_was_not_trained_is_not_used() -> None:
    state = {"state_dict": small().state_dict() | {"whole.gaussian.scale": torch.ones(())}}
    small(local_scale=WindowScale(32, 8, 0.0)).on_load_checkpoint(state)
    with pytest.raises(UserError, match=r"local_scale was not trained: leave --model\.local_scale\.weight at 0"):
        small().on_load_checkpoint(state)


def test_instances_share_no_settings() -> None:
    small_one, other = IGD(), IGD()
    small_one.local_scale.chunk_size = 7
    assert other.local_scale.chunk_size == IGD().local_scale.chunk_size == 512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_scale": Scale(48, 8)}, r"model\.global_scale\.size is 48, but must be a power of 2"),
        (
            {"global_scale": Scale(64, 8, ssim_window=2)},
            r"model\.global_scale\.ssim_window is 2, but must be odd",
        ),
        (
            {"global_scale": Scale(32, 8, ssim_weights=(0.2,) * 7)},
            r"7 levels with a window of .* px does not fit 32",
        ),
        ({"local_scale": WindowScale(32, 12)}, r"model\.local_scale\.width is 12, but must be a multiple of 8"),
        (
            {"local_scale": WindowScale(32, 8, stride=20)},
            r"windows of 32 px every 20 px do not end where images of 64 px",
        ),
        ({"local_scale": WindowScale(16, 8, stride=24)}, r"local_scale\.stride is 24, but must be at most .* 16 px"),
        ({"local_scale": WindowScale(32, 8, stride=0)}, r"model\.local_scale\.stride is 0, but must be 1 or more"),
        (
            {"local_scale": WindowScale(32, 8, chunk_size=0)},
            r"model\.local_scale\.chunk_size is 0, but must be 1 or more",
        ),
        (
            {"local_scale": WindowScale(32, 8, windows_per_image=0)},
            r"model\.local_scale\.windows_per_image is 0, but must be 1 or more",
        ),
        ({"global_scale": Scale(64, 8, -1)}, r"model\.global_scale\.weight is -1, but must be 0 or more"),
        ({"global_scale": Scale(64, 8, gaussian=3)}, r"model\.global_scale\.gaussian is 3, but must be from 0 to 1"),
        (
            {"global_scale": Scale(64, 8, ssim_weights=())},
            r"model\.global_scale\.ssim_weights is \[\], but must",
        ),
        ({"latent_size": 0}, r"model\.latent_size is 0, but must be 1 or more"),
        ({"whitened": True, "latent_size": 600}, r"model\.latent_size is 600, but must be \d+ or less"),
        ({"training": Training(estimate_every=0)}, "model.training.estimate_every is 0, but must be 1 or more"),
        ({"training": Training(interpolation=-1)}, "model.training.interpolation is -1, but must be 0 or more"),
        ({"local_scale": WindowScale(32, 8, 0.0), "global_scale": Scale(64, 8, 0.0)}, "not both be 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**changes)


def test_images_of_another_size_are_reported(detector: IGD) -> None:
    with pytest.raises(UserError, match=r"Images of 32 px .* of 64 px: give --data\.size 64, or"):
        detector(torch.rand(1, 3, 32, 32))
    for height, width in ((64, 32), (32, 64)):
        with pytest.raises(UserError, match=rf"Images of {height} x {width} px do not fit IGD.* --data\.size 64,"):
            detector(torch.rand(1, 3, height, width))
