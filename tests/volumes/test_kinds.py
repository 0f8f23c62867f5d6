"""What kind of image a DICOM series holds: read from each volume's own headers, and maps never taken for anatomy."""

import numpy as np
import pytest

from volumes.written import Series, head, one, save
from wavespark.volumes import NOT_FOR_PRETRAINING, NOTES_NOT_FOR_PRETRAINING, read_volumes


def read(tmp_path, modality="MR", stored=None, **values):
    def change(dataset, k):
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    Series(modality=modality, intercept=0.0, change=change, stored=head() if stored is None else stored).write(tmp_path)
    (volume,) = read_volumes(tmp_path).volumes
    return volume


DERIVED = ["DERIVED", "PRIMARY"]
ORIGINAL = ["ORIGINAL", "PRIMARY"]
SPIN_ECHO = {"RepetitionTime": "500", "EchoTime": "10"}


@pytest.mark.parametrize(
    ("values", "contrast", "note"),
    [
        ({"ImageType": [*ORIGINAL, "P", "ND"], **SPIN_ECHO}, "PHASE", "phase"),
        ({"ImageType": [*ORIGINAL, "PHASE MAP", "P", "FFE"]}, "PHASE", "phase"),
        ({"ImageType": [*ORIGINAL, "R_IR", "R", "IR"]}, "PHASE", "phase"),
        ({"ComplexImageComponent": "PHASE", **SPIN_ECHO}, "PHASE", "phase"),
        ({"ComplexImageComponent": "IMAGINARY"}, "PHASE", "phase"),
        ({"ImageType": [*DERIVED, "DIFFUSION", "ADC"], "SeriesDescription": "ep2d_diff_ADC"}, "ADC", "derived_map"),
        ({"ImageType": [*DERIVED, "ADC", "ADC", "UNSPECIFIED"]}, "ADC", "derived_map"),
        ({"ImageType": [*DERIVED, "DIFFUSION", "FA"], "SeriesDescription": "dwi_dir80_FA"}, "FA", "derived_map"),
        ({"ImageType": [*DERIVED, "DIFFUSION", "TRACEW"]}, "TRACE", "derived_map"),
        ({"ImageType": [*DERIVED, "DIFFUSION", "TENSOR_B0"]}, "B0", "derived_map"),
        ({"ImageType": [*DERIVED, "PERFUSION", "CBF"]}, "CBF", "derived_map"),
        ({"ImageType": [*ORIGINAL, "M", "SWI"]}, "SWI", "derived_map"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MNIP"]}, "MIP", "derived_map"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SUBTRACTION"]}, "SUBTRACTION", "derived_map"),
        ({"ImageType": [*DERIVED, "T1 MAP"]}, "T1MAP", "derived_map"),
        ({"ImageType": [*ORIGINAL, "LOCALIZER"]}, "LOCALIZER", "localizer"),
        ({"SeriesDescription": "AAHead_Scout"}, "LOCALIZER", "localizer"),
        ({"SeriesDescription": "Apparent Diffusion Coefficient (mm2/s)"}, "ADC", "derived_map"),
        ({"SeriesDescription": "relCBV"}, "CBV", "derived_map"),
        ({"SeriesDescription": "ep2d_bold_rest", "ScanningSequence": "EP"}, "BOLD", "functional"),
        ({"SeriesDescription": "3D pCASL"}, "ASL", "functional"),
        ({"ScanningSequence": ["EP", "GR"], "RepetitionTime": "2000", "EchoTime": "30"}, None, "functional"),
        ({"SequenceName": "*epfid2d1_64", "RepetitionTime": "2000", "EchoTime": "30"}, None, "functional"),
        ({"EchoPlanarPulseSequence": "YES", "RepetitionTime": "2000", "EchoTime": "30"}, None, "functional"),
        ({"DiffusionBValue": 1000.0, "ScanningSequence": ["EP", "SE"]}, "DWI", None),
        ({"SeriesDescription": "Ax DWI", "ScanningSequence": ["EP", "SE"]}, "DWI", None),
        ({"ImageType": [*ORIGINAL, "M", "ND", "NORM"], **SPIN_ECHO}, "T1", None),
        ({"ImageType": [*ORIGINAL, "M_SE", "M", "SE"], "RepetitionTime": "4000", "EchoTime": "90"}, "T2", None),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"], "SeriesDescription": "t1_mprage_tra"}, "T1", None),
        ({"SeriesDescription": "AX T1 OUT OF PHASE"}, "T1", None),
        ({"AngioFlag": "Y"}, "MRA", None),
    ],
)  # fmt: skip
def test_the_kind_of_an_mr_series_is_named(values, contrast, note, tmp_path):
    volume = read(tmp_path, **values)
    assert volume.contrast == contrast
    assert set(volume.notes) & NOTES_NOT_FOR_PRETRAINING == ({note} if note else set())
    assert contrast is None or (contrast in NOT_FOR_PRETRAINING) == (note is not None)


@pytest.mark.parametrize(
    ("values", "contrast", "note"),
    [
        ({"SeriesDescription": "Head CTA 0.6"}, "CTA", None),
        ({"SeriesDescription": "Head T1 level"}, None, None),
        ({"SeriesDescription": "arterial phase"}, None, None),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "LOCALIZER", "localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]}, "MIP", "derived_map"),
        ({"SeriesDescription": "CT Perfusion Tmax"}, "TMAX", "derived_map"),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}, None, None),
    ],
)
def test_the_kind_of_a_ct_series_is_named(values, contrast, note, tmp_path):
    volume = read(tmp_path, modality="CT", **values)
    assert volume.contrast == contrast
    assert set(volume.notes) & NOTES_NOT_FOR_PRETRAINING == ({note} if note else set())


def test_each_echo_has_the_contrast_of_its_own_headers(tmp_path):
    for n, (echo, name) in enumerate((("15", "a{}"), ("90", "b{}"))):

        def change(dataset, k, n=n, echo=echo):
            dataset.SOPInstanceUID = f"1.4.{n}.{k + 1}"
            dataset.RepetitionTime, dataset.EchoTime, dataset.EchoNumbers = "3000", echo, str(n + 1)

        Series(modality="MR", intercept=0.0, stored=head(seed=n), change=change, name=name.format).write(tmp_path)
    sums = {float(v.voxels.sum()): v.contrast for v in read_volumes(tmp_path).volumes}
    assert sums == {float(head(seed=0).sum()): "PD", float(head(seed=1).sum()): "T2"}


def test_frames_of_an_enhanced_object_have_the_kind_of_their_own_groups(tmp_path):
    series = Series(stored=np.concatenate([head(), head(seed=5)]), modality="MR", intercept=0.0)
    dataset = series.enhanced()
    for n, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = list(map(str, series.position(n % 7)))
        part = "M" if n < 7 else "P"
        frame.MRImageFrameTypeSequence = one(FrameType=["ORIGINAL", "PRIMARY", part, "NONE"], ComplexImageComponent="MAGNITUDE" if n < 7 else "PHASE")
        frame.MREchoSequence = one(EffectiveEchoTime=10.0)
        frame.MRTimingAndRelatedParametersSequence = one(RepetitionTime=500.0)
    save(dataset, tmp_path / "multi.dcm")
    sums = {float(v.voxels.sum()): v.contrast for v in read_volumes(tmp_path).volumes}
    assert sums == {float(head().sum()): "T1", float(head(seed=5).sum()): "PHASE"}


def test_a_private_element_of_ge_tells_phase_from_magnitude(tmp_path):
    def change(dataset, k):
        dataset.add_new(0x00430010, "LO", "GEMS_PARM_01")
        dataset.add_new(0x0043102F, "SS", 1)

    Series(modality="MR", intercept=0.0, change=change).write(tmp_path)
    (volume,) = read_volumes(tmp_path).volumes
    assert (volume.contrast, volume.notes) == ("PHASE", ("phase",))


def test_values_of_a_phase_image_name_it_where_its_header_does_not(tmp_path):
    stored = np.random.default_rng(0).integers(-4096, 4095, (7, 20, 22)).astype(np.int16)
    stored.ravel()[:2] = -4096, 4094
    volume = read(tmp_path, stored=stored, RepetitionTime="500", EchoTime="7")
    assert (volume.contrast, volume.notes) == ("PHASE", ("phase",))
