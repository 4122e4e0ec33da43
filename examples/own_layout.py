"""A layout of your own: one folder of images whose names say patient and finding, such as `p012_polyp_3.png`.

PYTHONPATH=examples ccd data check --root DIR --layout own_layout.NamedFiles
PYTHONPATH=examples ccd fit --config neighbours_folder --data own_layout.NamedFiles --data.root DIR
PYTHONPATH=examples ccd test --trust
"""

from __future__ import annotations

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.manifest import GOOD, Manifest, Row
from ccd_lightning.errors import UserError


class NamedFiles(AnomalyDataModule):
    """Images `PATIENT_FINDING_NUMBER.png`, FINDING being `normal` or a kind; masks have the same names in `masks`.

    Every patient with a finding is tested on, and so is a fifth of the others; the rest is trained on. No patient is
    in both splits.
    """

    def manifest(self, masks: bool = True) -> Manifest:
        """The table of all images: which is what, and in which split."""
        files = sorted(self.root.glob("*_*_*.png"))
        if not files:
            raise UserError(f"{self.root}: no images named PATIENT_FINDING_NUMBER.png.")
        names = {file: file.stem.split("_") for file in files}
        ill = {patient for patient, finding, _ in names.values() if finding != "normal"}
        healthy = sorted({patient for patient, _, _ in names.values()} - ill)
        tested = ill | set(healthy[::5])
        rows = [
            Row(
                path=file,
                split="test" if patient in tested else "train",
                anomaly_type=GOOD if finding == "normal" else finding,
                masks=(mask,) if masks and (mask := self.root / "masks" / file.name).is_file() else (),
                group=patient,  # whose images stay together, in the hold-out and in the intervals of metrics
            )
            for file, (patient, finding, _) in names.items()
        ]
        return Manifest(self.root, rows)
