from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.compat.proto import summary_pb2  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

from ccd_lightning.callbacks.descriptions import IMAGES, MEASURED, STAGES, add_descriptions, describe


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()


@pytest.mark.parametrize("model", ["ccd_synthetic", "igd_synthetic", "padim_synthetic"])
def test_every_scalar_and_image_of_a_run_is_described(trained: Path, model: str) -> None:
    events = read(trained / f"runs/{model}/version_0")
    for kind in ("scalars", "images"):
        tags = events.Tags()[kind]
        assert tags
        for tag in tags:
            assert len(events.SummaryMetadata(tag).summary_description) > 10, tag


@pytest.mark.parametrize("model", ["ccd_synthetic", "igd_synthetic", "padim_synthetic"])
def test_names_say_on_which_images_a_value_is_measured(trained: Path, model: str) -> None:
    tags = read(trained / f"runs/{model}/version_0").Tags()
    names = set(tags["scalars"] + tags["images"])
    assert {name for name in names if name.partition("/")[0] not in (*STAGES, "warning_line")} <= {"epoch"}
    tested = {name.removeprefix("test/") for name in names if name.startswith("test/")}
    assert not {f"pretext/{name}" for name in tested} & tested  # nothing twice


def test_tensorboard_reads_the_description_of_the_first_value_of_a_tag(tmp_path: Path) -> None:
    writer = SummaryWriter(tmp_path)
    for _ in range(2):
        add_descriptions(writer)
    written = list[Any]()
    file: Any = writer._get_file_writer()
    add_event = file.event_writer.add_event

    def keep_event(event: Any) -> None:
        written.append(event)
        add_event(event)

    file.event_writer.add_event = keep_event
    for step in range(3):
        writer.add_scalar("val/probe_auroc", step / 2, step)
    writer.add_scalar("mine/dose", 3.5)
    writer.add_image("test/roc", np.zeros((3, 4, 5), np.uint8))
    writer.add_text("note", "text")
    writer.close()
    first, second, third, own, image, _ = (event.summary.value[0].metadata for event in written)
    # TensorBoard's fast loader ignores a description without these.
    assert (first.data_class, first.plugin_data.plugin_name) == (summary_pb2.DATA_CLASS_SCALAR, "scalars")
    assert (image.data_class, image.plugin_data.plugin_name) == (summary_pb2.DATA_CLASS_BLOB_SEQUENCE, "images")
    assert {one.ByteSize() for one in (second, third, own)} == {0}
    events = read(tmp_path)
    assert [event.value for event in events.Scalars("val/probe_auroc")] == [0, 0.5, 1]
    assert events.SummaryMetadata("val/probe_auroc").summary_description == describe("val/probe_auroc")
    assert [event.value for event in events.Scalars("mine/dose")] == [3.5]
    assert events.Images("test/roc")[0].width == 5
    assert events.SummaryMetadata("test/roc").summary_description == IMAGES["test/roc"]
    assert events.Tags()["tensors"] == ["note/text_summary"]


def test_descriptions_name_the_images_and_the_subgroup() -> None:
    assert describe("val/loss").endswith("On held-out normal images.")
    assert describe("test/alignment") == describe("train/alignment").replace("training", "test")
    assert describe("test/image/auroc/polyp").endswith(
        "On test images. Of the abnormal ones, only those of kind polyp."
    )
    assert describe("test/pixel/aupro/size_small").endswith("only the third with the smallest lesions.")
    assert describe("test/pixel/aupro/kind_size_small").endswith("only those of kind size_small.")
    assert describe("train/learning_rate/critic") == describe("train/learning_rate")
    assert "Optimistic" in describe("test/pixel/dice_best")
    for name in ("mine/dose", "mine", "train/mine", "warning_line/mine", "test/image/mine/polyp", ""):
        assert describe(name) == "", name
    assert all(measure.meaning.endswith(".") for measure in MEASURED.values())
