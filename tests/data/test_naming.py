from pathlib import Path

import pytest

from ccd_lightning.data.naming import group_of, image_stem, is_mask_folder, is_normal, unread_suffix

NORMAL = """good Good NORMAL normal healthy Healthy_Controls negative control no_finding NoFinding No-Findings no-tumor
notumor non_polyp Normal.cases normal_images"""
NOT_NORMAL = "abnormal Ungood not_good benign lesion tumor nodule non_hodgkin normality images"
NO_PATIENTS = """img_0001 0001 slice_12 IMG-2020-01 benign_(1) ISIC_0000001 a IM-0001-0001 NORMAL2-IM-1427-0001 12/3 p1
BraTS2021_00012_flair_60 00012_60 subset1/4 path_12 patch_3_4 video_frame12 patients/4 impatient_3 cju0qkwl35piu
case_img_001 showcase1 sequel2 frame_seq_12 videos/7 no_patient controls/2 sub_a"""


@pytest.mark.parametrize("name", [*NORMAL.split(), "Normal cases", "no finding"])
def test_normal_names(name: str) -> None:
    assert is_normal(name)


@pytest.mark.parametrize("name", NOT_NORMAL.split())
def test_names_that_are_not_normal(name: str) -> None:
    assert not is_normal(name)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("patient0_1.png", "patient0"),
        ("Patient_012-3.png", "patient_012"),
        ("patient-A12_3.png", "patient-a12"),
        ("patient (7) 2.png", "patient 7"),
        ("PatientID_33_left.jpg", "patientid_33"),
        ("normal_patient7_2.png", "patient7"),
        ("person100_bacteria_475.jpeg", "person100"),
        ("subject12.tif", "subject12"),
        ("sub-control01_T1w.png", "sub-control01"),
        ("sub-CC110033_slice4.png", "sub-cc110033"),
        ("case_0040_slice_012.png", "case_0040"),
        ("pid12_3.png", "pid12"),
        ("video3_frame_120.png", "video3"),
        ("volume-12_slice_7.png", "volume-12"),
        ("patient00001/study1/view1_frontal.jpg", "patient00001"),
        ("patient7/video3/frame_2.png", "patient7"),
        ("video3/patient7_2.png", "patient7"),
        ("Subject7/03.png", "subject7"),
        ("train__good__patient7_3.png", "patient7"),
    ],
)
def test_patients_and_videos(name: str, group: str) -> None:
    base = Path("patient99/set")
    assert group_of(base / name, base) == group


@pytest.mark.parametrize("name", [*NO_PATIENTS.split(), "benign (1)"])
def test_names_without_patients(name: str) -> None:
    base = Path("set")
    assert group_of(base / f"{name}.png", base) is None


@pytest.mark.parametrize(
    ("stem", "image"),
    [
        ("benign (1)_mask", "benign (1)"),
        ("benign (4)_mask_1", "benign (4)"),
        ("ISIC_0000_segmentation", "ISIC_0000"),
        ("ISIC_0000_Segmentation", "ISIC_0000"),
        ("a_gt", "a"),
        ("a-label", "a"),
        ("a_seg", "a"),
        ("a.mask", "a"),
        ("a_ground_truth", "a"),
        ("mask", None),
        ("mask_1", None),
        ("damask", None),
        ("a_masked", None),
        ("a_1", None),
    ],
)
def test_names_of_masks(stem: str, image: str | None) -> None:
    assert image_stem(stem) == image


def test_names_of_mask_folders(tmp_path: Path) -> None:
    for name in ("ISIC2016_Test", "polyp", "lesion"):
        (tmp_path / name).mkdir()
    for name in ("ground_truth", "GroundTruth", "annotation", "Masks", "label", "GT", "ISIC2016_Test_GroundTruth"):
        assert is_mask_folder(tmp_path / name)
    for name in ("polyp_mask", "Polyp masks", "lesion-gt"):
        assert is_mask_folder(tmp_path / name)
    for name in ("masked", "good", "labeled-images", "segmented-images", "lesion", "missing_label", "oxygen_mask"):
        assert not is_mask_folder(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.mha", ".mha"),
        ("a.mha.gz", ".mha.gz"),
        ("a.SVS", ".svs"),
        ("a.dcm", None),
        ("a.nii.gz", None),
        ("a.GIF", None),
        ("IM0001", "no suffix"),
        ("a.png", None),
        ("a.txt", None),
        ("README", None),
        ("labels.csv", None),
    ],
)
def test_suffixes_that_are_not_read(name: str, suffix: str | None) -> None:
    assert unread_suffix(name) == suffix
