"""What is fit for pre-training: every kind that is kept out, and the unusual heads that must not be."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from prepare.heads import as_volume, head_array, write_head
from wavespark.errors import SettingsError, VolumeError
from wavespark.prepare import open_store, prepare
from wavespark.prepare.fit import check_head, check_kind
from wavespark.prepare.foreground import find_foreground
from wavespark.prepare.report import PrepareReport
from wavespark.prepare.table import read_table
from wavespark.volumes import Refusal

MM = np.diag([4.0, 4, 4, 1])


def regions(shape=(48, 56, 44), count=90, seed=0):
    """An atlas: `count` regions inside an ellipsoid, each of one number."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(3, *shape)), (0, 5, 5, 5))
    codes = np.unique((noise / noise.std() * 1.6).round().astype(int).reshape(3, -1), axis=1, return_inverse=True)[1]
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum(g**2 for g in grid) < 0.6
    return np.where(inside, 1 + codes.reshape(shape) % count, 0).astype(np.float32)


def probability(shape=(48, 56, 44), scale=1.0, seed=1):
    tissue = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3) > 0
    soft = ndimage.gaussian_filter((tissue & (regions(shape) > 0)).astype(float), 0.7)
    return np.where(soft > 0.004, scale * soft / soft.max(), 0).astype(np.float32)


def t_values(shape=(48, 56, 44), seed=2):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return np.where(regions(shape) > 0, 3 * smooth / smooth.std(), 0).astype(np.float32)


def reason(volume):
    try:
        check_kind(volume)
    except VolumeError as error:
        assert "--keep-everything" in error.sentence
        return error.reason
    return None


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        (regions(), "label_map"),
        (regions(count=500), "label_map"),
        (probability(), "probability_map"),
        (probability(scale=255.0), "probability_map"),
        (t_values(), "statistics_map"),
    ],
)
def test_maps_are_told_from_images_by_their_values(voxels, expected):
    assert reason(as_volume(voxels, MM)) == expected


def test_masks_and_labels_of_few_values_and_everything_that_its_name_calls_a_map_are_left_out():
    assert reason(as_volume(regions(count=4), MM, notes=("few_distinct_values",))) == "label_map"
    for note in ("derived_map", "phase", "functional", "localizer", "time_series"):
        assert reason(as_volume(head_array(), MM, notes=(note,))) == note
    assert reason(as_volume(head_array(), MM, contrast="ADC")) == "derived_map"


def test_images_with_unusual_values_are_kept():
    head = head_array((48, 56, 44))
    brain = np.where(regions() > 0, head, 0)
    inside = brain[brain != 0]
    rim = ndimage.gaussian_filter((regions() > 0).astype(float), 1.5) * brain  # darker at its border, as brains are
    unusual = {
        "scaled to 0..1": head / head.max(),
        "8 bits": np.rint(head / head.max() * 255),
        "clipped at a percentile": np.minimum(head, np.quantile(head, 0.97)) / np.quantile(head, 0.97),
        "brain only": brain,
        "mean 0, deviation 1, brain only": np.where(rim != 0, (rim - inside.mean()) / inside.std(), 0),
        "mean 0, deviation 1": (head - head.mean()) / head.std(),
        "enlarged by copying voxels": head.repeat(2, 0).repeat(2, 1).repeat(2, 2),
        "slices copied": head.repeat(3, 2),
    }
    assert {k: r for k, v in unusual.items() if (r := reason(as_volume(v.astype(np.float32), MM)))} == {}


def no_head(voxels, affine, modality="MR"):
    foreground = find_foreground(voxels, affine, modality)
    try:
        check_head(voxels, affine, foreground, modality, finest_mm=min(np.diag(affine)[:3]))
    except VolumeError as error:
        assert error.reason == "not_a_head"
        return error.sentence
    return None


def ellipsoid(shape, radii, seed=0):
    """Bright, textured tissue in dark noise."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum((g / r) ** 2 for g, r in zip(grid, radii, strict=True)) < 1
    return np.where(inside, 300 + 20 * rng.normal(size=shape), 4 * np.abs(rng.normal(size=shape))).astype(np.float32)


def chest(shape=(80, 60, 30)):
    """A trunk with two lungs, HU."""
    body = ellipsoid(shape, (0.95, 0.85, 5)) > 100
    lungs = [ellipsoid(shape, (0.33, 0.55, 4)) > 100, np.zeros(shape, bool)]
    both = np.roll(lungs[0], -shape[0] // 5, 0) | np.roll(lungs[0], shape[0] // 5, 0)
    noise = 10 * np.random.default_rng(3).normal(size=shape)
    return (np.where(body, np.where(both, -850, 40), -1000) + noise).astype(np.float32)


def test_other_parts_of_the_body_and_animals_are_no_heads():
    assert "wide" in no_head(ellipsoid((90, 60, 30), (0.9, 0.8, 4)), np.diag([4.0, 4, 6, 1]))  # a trunk, 324 mm
    assert "long as wide" in no_head(ellipsoid((20, 20, 120), (0.6, 0.6, 0.95)), np.diag([3.0, 3, 3, 1]))  # a limb
    assert "0.2 mm" in no_head(ellipsoid((100, 120, 90), (0.7, 0.8, 0.7)), np.diag([0.2, 0.2, 0.2, 1]))
    assert "air" in no_head(chest(), np.diag([3.0, 3, 6, 1]), "CT")


@pytest.mark.parametrize(
    ("shape", "radii", "mm"),
    [
        ((80, 90, 70), (0.9, 0.9, 0.9), (1.0, 1, 1)),  # a newborn's brain
        ((120, 140, 18), (0.9, 0.9, 9), (1.0, 1, 1)),  # an axial slab of 18 mm
        ((12, 120, 120), (9, 0.8, 0.9), (1.5, 1.5, 1.5)),  # a sagittal slab of 18 mm
        ((60, 80, 90), (0.6, 0.7, 0.98), (3.0, 3, 3)),  # head and neck
        ((130, 130, 12), (0.9, 0.9, 9), (0.6, 0.6, 2)),  # a field of view of 78 mm in fine voxels
    ],
)
def test_children_slabs_and_small_fields_of_view_are_heads(shape, radii, mm):
    assert no_head(ellipsoid(shape, radii), np.diag([*mm, 1.0])) is None


def test_heads_of_the_tests_and_a_ct_head_are_heads():
    for modality in ("MR", "CT"):
        assert no_head(head_array((48, 56, 44), modality), MM, modality) is None


def save(path, voxels, affine=MM):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(voxels), affine), path)


@pytest.mark.parametrize("workers", [0, 2])
def test_duplicates_are_left_out_once_and_known_in_the_next_run(tmp_path, workers):
    first = write_head(tmp_path / "data" / "a_T1w.nii.gz", 1)
    for name in ("b_T1w.nii.gz", "sub/c.nii"):
        save(tmp_path / "data" / name, nib.load(first).get_fdata().astype(np.float32))
    write_head(tmp_path / "data" / "other_T1w.nii.gz", 2)
    report = prepare(tmp_path / "data", tmp_path / "store", "native", for_pretraining=True, workers=workers)
    assert (report.prepared, report.volumes, report.reasons) == (2, 2, {"duplicate": 2})
    assert report.verdict(strict=True) is None
    again = prepare(tmp_path / "data", tmp_path / "store", "native", for_pretraining=True)
    assert (again.prepared, again.already_there, again.reasons) == (0, 2, {"duplicate": 2})
    everything = prepare(tmp_path / "data", tmp_path / "store", "native")
    assert (everything.prepared, everything.volumes, len(everything.refused)) == (2, 4, 0)
    assert open_store(tmp_path / "store").verify() == ()


def test_a_table_decides_modality_contrast_and_patient_and_a_changed_table_makes_the_volume_again(tmp_path):
    data, table = tmp_path / "data", tmp_path / "table.csv"
    write_head(data / "one.nii.gz", 1)
    write_head(data / "two.nii.gz", 2)
    save(data / "atlas.nii.gz", regions())
    table.write_text("Path;modality;contrast;patient\none.nii.gz;mr;flair;DOE\n" + f"{data / 'two.nii.gz'};CT;;DOE\n")
    report = prepare(data, tmp_path / "store", "native", table=table, for_pretraining=True)
    assert report.reasons == {"label_map": 1}
    kinds = {(v.modality, v.contrast) for v in open_store(tmp_path / "store")}
    assert kinds == {("MR", "FLAIR"), ("CT", None)}
    assert len({v.patient for v in open_store(tmp_path / "store")}) == 1
    again = prepare(data, tmp_path / "store", "native", table=table, for_pretraining=True)
    assert (again.prepared, again.already_there) == (0, 2)
    table.write_text("path,contrast\none.nii.gz,ADC\natlas.nii.gz,T1\n")
    third = prepare(data, tmp_path / "store", "native", table=table, for_pretraining=True)
    assert third.reasons == {"derived_map": 1} and third.prepared == 2
    assert "T1" in {v.contrast for v in open_store(tmp_path / "store")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,contrast\na.nii,DOEJANE\n", "line 2: contrast must be one of T1"),
        ("path,modality\na.nii,PET-DOE\n", "line 2: modality must be one of MR, CT"),
        ("file,modality\na.nii,MR\n", "line 1 has an unknown column"),
        ("modality\nMR\n", "must name the column path"),
        ("path,modality\n,MR\n", "line 2: the cell of column path is empty"),
        ("path\n", "no row"),
        ('path\n"a\n', "no CSV"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_line_and_without_its_cells(tmp_path, text, expected):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        read_table(path)
    assert expected in str(refused.value) and "DOE" not in str(refused.value)


def test_a_row_that_names_no_input_is_an_error_with_its_line(tmp_path):
    write_head(tmp_path / "data" / "one.nii.gz", 1)
    (tmp_path / "t.csv").write_text("path,modality\none.nii.gz,MR\nDOEJANE.nii.gz,MR\n")
    with pytest.raises(SettingsError, match=r"1 of 2 row\(s\) name no input \(line 3\)") as refused:
        prepare(tmp_path / "data", tmp_path / "store", table=tmp_path / "t.csv")
    assert "DOEJANE" not in str(refused.value) and not (tmp_path / "store").exists()


def test_only_damaged_inputs_count_against_the_largest_bad_fraction():
    def refusals(count, code):
        return [Refusal(source_id=f"{code}{i}", reason=code, sentence="") for i in range(count)]

    def verdict(*refused, **more):
        report = PrepareReport(prepared=20, already_there=0, refused=tuple(refused), volumes=20, seconds=0.0)
        return report.verdict(**more)

    kept_out = refusals(90, "label_map") + refusals(30, "duplicate")
    links = refusals(500, "not_a_regular_file")
    assert verdict(*kept_out, *links) is None
    assert verdict(*kept_out, strict=True) is None
    assert "1 of 141 input(s)" in verdict(*kept_out, *refusals(1, "truncated"), strict=True)
    assert verdict(*links, *refusals(1, "truncated")) is None
    assert "2 of 22 inputs (9.1 %) are damaged" in verdict(*links, *refusals(2, "truncated"))
