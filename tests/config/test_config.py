"""Settings: closed, all mistakes at once, read, and kept."""

import ast
import inspect
import itertools
import textwrap
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wavespark
from wavespark.config import PretrainSettings, load_pretraining, to_toml, training_configs
from wavespark.config.downstream import FinetuneSettings
from wavespark.errors import SettingsError
from wavespark.prepare import Recipe
from wavespark.settings import Settings, known_keys

SOURCE = Path(wavespark.__file__).parent


def written(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", training_configs())
def test_every_recipe_that_comes_with_the_package_loads(name):
    loaded = load_pretraining(name)
    assert load_pretraining(f"{name}.toml") == loaded
    assert load_pretraining(SOURCE / "configs" / f"{name}.toml") == loaded
    assert "tiny-cpu" in training_configs()


@pytest.mark.parametrize("kind", [PretrainSettings, FinetuneSettings, Recipe])
def test_every_setting_says_what_it_is(kind):
    def bare(settings, path):
        names = ast.parse(textwrap.dedent(inspect.getsource(settings))).body[0].body
        for field, after in itertools.pairwise([*names, None]):
            if isinstance(field, ast.AnnAssign):
                if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
                    yield f"{path}{field.target.id}"
                inner = settings.model_fields[field.target.id].annotation
                if isinstance(inner, type) and issubclass(inner, Settings):
                    yield from bare(inner, f"{path}{field.target.id}.")

    assert not list(bare(kind, ""))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("run.step", "run.steps"),
        ("data.batchsize", "data.batch"),
        ("optimiser.learning_rate", "optimizer.learning_rate"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest_known_one(tmp_path, key, nearest):
    table, name = key.split(".")
    for load in (
        lambda: load_pretraining(written(tmp_path, f"[{table}]\n{name} = 3\n")),
        lambda: load_pretraining("tiny-cpu", [f"{key}=3"]),
    ):
        with pytest.raises(SettingsError) as caught:
            load()
        assert table in str(caught.value)
        assert nearest.split(".")[0] in str(caught.value)
        if table == nearest.split(".")[0]:
            assert f"unknown setting {key!r}: did you mean {nearest!r}?" in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path):
    text = '[run]\nsteps = 0\nprecision = "fp8"\nsedd = 1\n[mask]\nratio = 1.0\n[optimizer]\nbetas = [0.9, 1.0]\nclip = inf\n'
    with pytest.raises(SettingsError) as caught:
        load_pretraining(written(tmp_path, text))
    told = str(caught.value)
    for part in (
        "recipe.toml",
        "run.steps",
        "run.precision",
        "run.sedd",
        "run.seed",
        "mask.ratio",
        "optimizer.betas",
        "optimizer.clip",
    ):
        assert part in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "word",
    [
        "data.crop=[8, 8, 8]",
        "data.crop=[0, 64, 64]",
        "data.crop=[-64, 64, 64]",
        "data.crop=[64, 64]",
        "mask.block=0",
        "mask.block=-2",
        "decoder.widths=[102, 50]",
        "decoder.depths=[1]",
        "decoder.depths=[-1, 1]",
        "decoder.mlp_ratio=0",
        "decoder.densify_kernel=2",
        "decoder.kind=heavy",
        "data.augmentation.flip=1.1",
        "data.augmentation.elastic_mm=9",
        "data.augmentation=strong",
        "decoder.widths=[64, 32, 16, 8]",
        "decoder.heads=[0, 2]",
        "model.name=waveformer_tny",
        "run.seed=99999999999999999999999",
        "run.keep=1",
        "data.modality_weights={MR=-1.0}",
        "optimizer.learning_rate=nan",
        "run=3",
        "run.steps",
    ],
)
def test_what_cannot_be_run_is_refused_before_it_is_begun(word):
    with pytest.raises(SettingsError):
        load_pretraining("tiny-cpu", [word])


def test_a_decoder_of_more_scales_than_the_encoder_has_is_refused():
    words = ["decoder.widths=[64, 32, 16, 12]", "decoder.depths=[1, 1, 1, 1]", "decoder.heads=[2, 2, 2, 2]"]
    with pytest.raises(SettingsError, match="4 scale"):
        load_pretraining("tiny-cpu", words)


def test_words_are_laid_over_the_recipe():
    loaded = load_pretraining(
        "tiny-cpu", ["run.steps=7", "optimizer.learning_rate=1e-4", "run.device=cpu", "mask.block=adaptive"]
    )
    assert (loaded.run.steps, loaded.optimizer.learning_rate, loaded.run.device) == (7, 1e-4, "cpu")
    assert loaded.mask.block == "adaptive"


def test_a_folder_of_a_recipes_name_does_not_hide_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-cpu").mkdir()
    assert load_pretraining("tiny-cpu").model.name == "waveformer_tiny"


@pytest.mark.parametrize("text", ["[run", "a" * 10, "x = " + "[" * 50_000, "\x00", "[run]\nsteps = 1\nsteps = 2\n"])
def test_what_is_no_toml_is_refused_in_one_line(tmp_path, text):
    with pytest.raises(SettingsError, match=r"recipe\.toml") as caught:
        load_pretraining(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"\xff\xfe")
    for name in ("tiny", tmp_path, tmp_path / "none.toml", tmp_path / "latin.toml"):
        with pytest.raises(SettingsError, match="tiny-cpu"):
            load_pretraining(name)


def test_a_file_may_extend_a_configuration_or_another_file_and_changes_only_what_it_names(tmp_path):
    (tmp_path / "base.toml").write_text('extends = "tiny-cpu"\n[run]\nsteps = 9\n[data.augmentation]\nzoom = 0.1\n')
    path = written(tmp_path, 'extends = "base.toml"\n[run]\nseed = 5\n[data.augmentation]\ngamma = 0.2\n')
    words = ["run.steps=9", "run.seed=5", "data.augmentation.zoom=0.1", "data.augmentation.gamma=0.2"]
    assert load_pretraining(path) == load_pretraining("tiny-cpu", words)
    assert load_pretraining(path, ["run.steps=3"]).run.steps == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('extends = "recipe.toml"', "cannot extend itself"),
        ('extends = "tiny-cpv"', "tiny-cpu"),
        ("extends = 3", "takes the name"),
        ('extends = ["tiny-cpu"]', "takes the name"),
    ],
)
def test_a_file_that_extends_nothing_that_can_be_read_is_refused(tmp_path, text, reason):
    with pytest.raises(SettingsError, match=reason):
        load_pretraining(written(tmp_path, text + "\n"))


EARLIER = {"intensity_scale": "scale", "intensity_shift": "shift", "augment_share": "share", "flip": "flip"}


@pytest.mark.parametrize(("earlier", "now"), EARLIER.items())
def test_augmentation_keys_of_earlier_files_still_mean_the_same(tmp_path, earlier, now):
    expected = load_pretraining("tiny-cpu", [f"data.augmentation.{now}=0.25", "data.augmentation.zoom=0.2"])
    assert getattr(expected.data.augmentation, now) == 0.25
    assert load_pretraining("tiny-cpu", [f"data.{earlier}=0.25", "data.augmentation.zoom=0.2"]) == expected
    with pytest.raises(SettingsError, match="earlier name"):
        load_pretraining("tiny-cpu", [f"data.{earlier}=0.25", f"data.augmentation.{now}=0.5"])


@pytest.mark.parametrize(
    ("word", "nearest"),
    [("data.augmentation.flop=0.5", "data.augmentation.flip"), ("decoder.widhts=[32]", "decoder.widths")],
)
def test_an_unknown_key_of_a_component_is_refused_with_the_nearest_known_one(word, nearest):
    with pytest.raises(SettingsError, match=f"did you mean '{nearest}'"):
        load_pretraining("tiny-cpu", [word])


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
FLAT = st.one_of(st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False), TEXT)
VALUES = st.one_of(FLAT, st.lists(FLAT, max_size=3), st.dictionaries(TEXT, FLAT, max_size=3))


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({"a": FLAT, "table": st.fixed_dictionaries({"b": VALUES, "c_d": VALUES})}))
def test_a_document_as_toml_comes_back_as_it_was(document):
    again = tomllib.loads(to_toml(document))
    assert again == document
    assert repr(sorted(again.items())) == repr(sorted(document.items()))  # 1.0 is not 1


def test_settings_as_toml_come_back_as_they_were():
    loaded = load_pretraining("tiny-cpu", ["data.modality_weights={MR=1.0, CT=2.5}", "optimizer.learning_rate=1e-5"])
    again = PretrainSettings.model_validate(tomllib.loads(to_toml(loaded.model_dump())))
    assert again == loaded and again.model_dump() == loaded.model_dump()


def test_settings_are_frozen():
    loaded = load_pretraining("tiny-cpu")
    with pytest.raises(ValueError, match="frozen"):
        loaded.run.steps = 3


def reads(tree):
    """Names of attributes that a source reads."""
    return {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}


def test_every_key_is_read_somewhere():
    outside = [p for p in SOURCE.rglob("*.py") if "config" not in p.relative_to(SOURCE).parts]
    read = set().union(*(reads(ast.parse(p.read_text(encoding="utf-8"))) for p in outside))
    for handed_over in ("pretrain", "objective"):
        read |= reads(ast.parse((SOURCE / f"config/{handed_over}.py").read_text(encoding="utf-8")))
    whole = {"decoder"}  # handed over as a whole: DecoderSettings has the same fields
    keys = known_keys(PretrainSettings)
    assert "run.steps" in keys and len(keys) > 25
    assert [k for k in keys if k.split(".")[0] not in whole and k.split(".")[-1] not in read] == []


def test_each_key_changes_what_is_run_or_how():
    """The same, by effect: a key's value reaches the value that is built from it."""
    base = load_pretraining("tiny-cpu")
    for word, built in (
        ("data.augmentation.flip=0.25", lambda s: s.data.augmentation.flip),
        ("data.augmentation.scale=0.25", lambda s: s.data.augmentation.scale),
        ("data.augmentation.shift=0.25", lambda s: s.data.augmentation.shift),
        ("data.augmentation.noise=0.25", lambda s: s.data.augmentation.noise),
        ("data.augmentation.rotation_degrees=25", lambda s: s.data.augmentation.rotation_degrees),
        ("data.augmentation.zoom=0.25", lambda s: s.data.augmentation.zoom),
        ("data.augmentation.elastic_mm=2.5", lambda s: s.data.augmentation.elastic_mm),
        ("data.augmentation.low_resolution_mm=2.5", lambda s: s.data.augmentation.low_resolution_mm),
        ("data.augmentation.bias_field=0.25", lambda s: s.data.augmentation.bias_field),
        ("data.augmentation.gamma=0.25", lambda s: s.data.augmentation.gamma),
        ("data.augmentation.share=0.25", lambda s: s.data.augmentation.share),
        ("mask.ratio=0.25", lambda s: s.masking((8, 8, 8)).ratio),
        ("mask.block=2", lambda s: s.masking((8, 8, 8)).block),
        ("data.crop=[32, 64, 64]", lambda s: s.masking((8, 8, 8)).grid),
        ("model.drop_path=0.25", lambda s: s.encoder({"MR": 1}).settings.drop_path),
        ("model.name=waveformer_small", lambda s: s.encoder({"MR": 1}).channels),
        ("decoder.widths=[64, 32]", lambda s: s.decoder.widths),
        ("decoder.mlp_ratio=3", lambda s: s.decoder.mlp_ratio),
    ):
        assert built(load_pretraining("tiny-cpu", [word])) != built(base), word
