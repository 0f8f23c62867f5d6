import pytest

from wavespark.errors import SettingsError
from wavespark.prepare import Recipe, load_recipe, recipe_names
from wavespark.prepare.recipe import reading_settings
from wavespark.settings import known_keys


@pytest.mark.parametrize("name", ["head-1mm", "head-05mm", "native"])
def test_every_packaged_recipe_loads_and_has_its_own_fingerprint(name):
    assert name in recipe_names()
    others = {load_recipe(other).fingerprint for other in recipe_names() if other != name}
    assert load_recipe(name).fingerprint not in others
    assert len(load_recipe(name).fingerprint) == 64


def test_the_default_recipe_is_the_one_of_the_package():
    assert load_recipe().fingerprint == Recipe().fingerprint == load_recipe("head-1mm").fingerprint


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    with pytest.raises(SettingsError, match=r"'foreground\.margin'.*'foreground\.margin_mm'"):
        load_recipe("head-1mm", ["foreground.margin=3"])


def test_all_mistakes_are_told_at_once():
    with pytest.raises(SettingsError) as caught:
        load_recipe("head-1mm", ["spacin_mm=1", "mr.percentiles=[99, 1]", "spacing_mm=-1"])
    for part in ("spacing_mm", "percentile", "greater than 0"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("word", ["spacing_mm=0.8", "ct.step_hu=0.5", "mr.values=raw", "foreground.crop=false"])
def test_every_setting_changes_the_fingerprint_and_is_named_as_what_changed(word):
    now, before = load_recipe("head-1mm", [word]), load_recipe("head-1mm")
    assert now.fingerprint != before.fingerprint
    assert len(now.differences(before)) == 1
    assert word.split("=")[0] in now.differences(before)[0]


def test_a_recipe_comes_back_from_its_own_settings():
    recipe = load_recipe("native", ["reading.allow_gaps=true"])
    assert Recipe.from_settings(recipe.settings).fingerprint == recipe.fingerprint
    assert reading_settings(recipe.reading).allow_gaps


def test_a_recipe_file_is_read_and_a_missing_or_broken_one_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("spacing_mm = 0.7\n")
    assert load_recipe(path).spacing_mm == 0.7
    assert load_recipe(path).name == "mine"
    path.write_text("spacing_mm = = 0.7\n")
    with pytest.raises(SettingsError, match="not TOML"):
        load_recipe(path)
    with pytest.raises(SettingsError, match="no such recipe file"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="head-1mm"):
        load_recipe("head-2mm")


def test_reading_repairs_are_closed_too():
    with pytest.raises(SettingsError, match="allow_gaps"):
        reading_settings({"allow_gap": True})
    assert "ct.windows" in known_keys(Recipe)
