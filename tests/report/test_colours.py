"""Words and lines of the page can be told from their background, in light and dark and on paper (WCAG 2.2, 1.4.3 and 1.4.11)."""

import re
from importlib.resources import files

import pytest

CSS = files("wavespark.pages").joinpath("page.css").read_text(encoding="utf-8")


def palettes() -> dict[str, dict[str, str]]:
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    light, dark, paper = (dict(re.findall(r"--([\w]+): (#[0-9a-f]{3,6})", block)) for block in blocks)
    return {"light": light, "dark": {**light, **dark}, "print": {**light, **paper}}


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
    channels = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_is_that_of_the_guideline() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", ["light", "dark", "print"])
def test_words_stand_out(name: str) -> None:
    palette = palettes()[name]
    for word in ("ink", "soft", "blue"):
        for ground in ("paper", "card"):
            assert contrast(palette[word], palette[ground]) >= 4.5, (name, word, ground)


@pytest.mark.parametrize("name", ["light", "dark", "print"])
def test_curves_stand_out_and_differ_in_more_than_colour(name: str) -> None:
    palette = palettes()[name]
    for line in ("blue", "orange", "green", "purple"):
        assert contrast(palette[line], palette["paper"]) >= 3, (name, line)
    dashes = re.findall(r"\.(inpainting|third|second) \{[^}]*stroke-dasharray: ([\d ]+)", CSS)
    assert {look for look, _ in dashes} == {"inpainting", "third", "second"}
    assert len({dash for _, dash in dashes}) == 2, "baselines are dashed and dotted, so grey copies can be read, too"


def test_on_paper_folded_parts_are_open_and_what_needs_a_screen_is_gone() -> None:
    printed = CSS.split("@media print")[1]
    assert "nav, .viewer { display: none; }" in printed
    assert "details-content" in printed
    assert "break-inside: avoid" in printed
