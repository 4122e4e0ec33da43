from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ccd_lightning.callbacks.compiling import CompileEncoder
from ccd_lightning.cli import main
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.padim import PaDiM
from tests.runs import PADIM

TRAINER: Any = SimpleNamespace()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """The graphs that were compiled by the backend "recording"."""
    compiled: list[torch.fx.GraphModule] = []

    def record(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda work, backend: COMPILE(work, backend=record))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda own, backend: COMPILE_MODULE(own, backend=record))
    return compiled


COMPILE, COMPILE_MODULE = torch.compile, torch.nn.Module.compile


def test_features_and_maps_run_compiled_and_stay_equal(graphs: list[torch.fx.GraphModule]) -> None:
    encoder, images = PaDiM().encoder.eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = [encoder.features(images), *encoder.maps(images)]
        encoder.compile(backend="recording")
        found = [encoder.features(images), *encoder.maps(images)]
    assert len(graphs) == 2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert encoder.grids((96, 96))  # which are traced on the network itself


@pytest.mark.parametrize(("model", "count"), [(CCD, 1), (PaDiM, 1), (IGD, 2)])
def test_the_callback_compiles_every_encoder_once(
    model: type[CCD | PaDiM | IGD], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr("torch.nn.Module.compile", lambda network, **options: compiled.append((network, options)))
    module = model()
    names = set(module.state_dict())
    for stage in ("fit", "validate"):
        CompileEncoder("eager", mode="default").setup(TRAINER, module, stage)
    assert len(compiled) == count
    assert all(options == {"backend": "eager", "mode": "default"} for _, options in compiled)
    assert set(module.state_dict()) == names


@pytest.mark.fit
def test_a_compiled_fit_gives_the_same_and_its_checkpoint_needs_no_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = Path(__file__).parents[2] / "configs"
    (tmp_path / "configs").symlink_to(config)
    own = "--trainer.callbacks+=ccd_lightning.callbacks.compiling.CompileEncoder"
    assert main([*PADIM, "--model.encoder.weights=null"]) == 0
    compiled = [own, "--trainer.callbacks.backend=eager", "--trainer.logger.init_args.name=compiled"]
    assert main([*PADIM, "--model.encoder.weights=null", *compiled]) == 0
    first, second = (
        torch.load(next(Path("runs", name).glob("version_0/checkpoints/best.ckpt")), weights_only=True)["state_dict"]
        for name in ("padim_synthetic", "compiled")
    )
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-4)
    assert main(["test", "--ckpt_path", "runs/compiled"]) == 0
