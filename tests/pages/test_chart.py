import doctest
import math
import re

import numpy as np
import pytest

from wavespark.pages import chart as charts
from wavespark.pages import markup, numbers
from wavespark.pages.chart import Curve, Level, chart, smoothed
from wavespark.report import tables


def line(y, **settings):
    return Curve(
        label="line", x=np.arange(1, len(y) + 1, dtype=float), y=np.asarray(y, dtype=float), look="smooth", **settings
    )


def points(figure, look="curve smooth"):
    """The points of a curve in the chart's own units of a thousandth."""
    d = re.search(rf'd="([^"]*)" class="{look}"', figure)[1]
    return [(int(x), int(y)) for x, y in re.findall(r"(-?\d+),(-?\d+)", d)]


def test_points_lie_where_their_values_say():
    figure = chart("Title", [line([0.0, 5.0, 10.0])], floor=0.0)
    top = 10.5  # five per cent of air above the highest value
    assert points(figure) == [(333, 1000), (667, round(1000 * (1 - 5 / top))), (1000, round(1000 * (1 - 10 / top)))]


def test_no_spike_of_a_long_series_is_lost():
    y = np.zeros(50_000)
    up, down = np.arange(60, 50_000, 500), np.arange(310, 50_000, 500)
    y[up], y[down] = 1.0, -1.0
    drawn = points(chart("Title", [line(y)], ceiling=1.0))
    assert len(drawn) <= 800
    highest, lowest = min(p[1] for p in drawn), max(p[1] for p in drawn)
    assert [p[0] for p in drawn if p[1] == highest] == [round((k + 1) / 50) for k in up]
    assert [p[0] for p in drawn if p[1] == lowest] == [round((k + 1) / 50) for k in down]


def test_a_gap_in_the_record_is_a_gap_in_the_line():
    figure = chart("Title", [line([1.0, 2.0, math.nan, 2.0, 1.0])])
    d = re.search(r'd="(M[^"]*)" class="curve smooth"', figure)[1]
    assert d.count("M") == 2 and d.count("L") == 2


def test_values_far_above_the_rest_are_drawn_at_the_edge_and_counted():
    y = np.ones(300)
    y[[3, 4]] = 1000
    figure = chart("Title", [line(y)], floor=0.0)
    assert "2 values above" in figure
    assert [p[1] for p in points(figure)[3:5]] == [0, 0]


def test_a_level_is_inside_the_chart_whatever_the_values():
    for y in ([0.2, 0.3], [5.0, 7.0]):
        figure = chart("Title", [line(y)], levels=(Level(value=1.0, label="mean"),))
        at = int(re.search(r'd="M0,(-?\d+)H1000" class="level"', figure)[1])
        assert 0 < at < 1000


def test_a_chart_without_a_finite_value_is_no_chart():
    assert chart("Title", [line([math.nan, math.nan])]) is None
    assert chart("Title", [line([])]) is None


@pytest.mark.parametrize("value", [0.0, 1e-99, -3.0, 1e99, 5e-324])
def test_a_constant_of_any_size_makes_a_chart(value):
    figure = chart("Title", [line([value] * 3)])
    assert len(points(figure)) == 3


@pytest.mark.parametrize("length", [0, 1, 2, 19, 40, 301])
def test_the_smooth_line_is_the_mean_of_the_steps_around(length):
    y = np.random.default_rng(0).normal(size=length)
    y[length // 2 : length // 2 + length // 10] = np.nan
    smooth, n = smoothed(y)
    assert n % 2 == 1 and len(smooth) == length
    for k in range(length):
        around = y[max(0, k - n // 2) : k + n // 2 + 1]
        around = around[np.isfinite(around)]
        if len(around):
            assert smooth[k] == pytest.approx(around.mean())
        else:
            assert np.isnan(smooth[k])


@pytest.mark.parametrize("module", [charts, markup, numbers, tables], ids=lambda m: m.__name__)
def test_the_examples_of_the_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_numbers_for_people_never_show_a_value_that_is_not_one():
    for on_progress in (numbers.number, numbers.count, numbers.share, numbers.duration, numbers.parameters):
        for value in (None, math.nan, math.inf, -math.inf):
            assert on_progress(value) in {"not recorded", "not finite"}


@pytest.mark.parametrize(
    ("value", "told"), [(0.9996, "1.00"), (9.999, "10.0"), (0.05, "0.0500"), (123456.7, "123,457"), (-2.5, "-2.50")]
)
def test_numbers_keep_three_figures(value, told):
    assert numbers.number(value) == told


def test_a_baseline_far_above_the_rest_does_not_press_the_curves_flat():
    x = np.arange(1.0, 11)
    own = Curve(label="held out", x=x, y=np.linspace(1.0, 0.5, 10), look="validation")
    far = Curve(label="trilinear", x=x, y=np.full(10, 6.9), look="inpainting", guide=True)
    near = Curve(label="harmonic", x=x, y=np.full(10, 1.4), look="third", guide=True)
    drawn = chart("Loss", [own, far, near])
    assert "10 values above" in drawn
    assert "above" not in chart("Loss", [own, near])
    heights = [int(y) for y in re.findall(r"L\d+,(\d+)", re.search(r'd="(M[^"]+)" class="curve validation"', drawn)[1])]
    assert max(heights) - min(heights) > 400, "the curve still uses half of the height"
    assert chart("Loss", [far]) is not None


def test_intervals_reach_from_their_lower_to_their_upper_ends_and_widen_the_range():
    x, y = np.array([1.0, 2.0, 4.0]), np.array([0.4, 0.5, 0.6])
    arm = Curve(label="arm", x=x, y=y, low=y - 0.3, high=y + 0.3, look="smooth")
    figure = chart("Dice", [arm], x_title="labels", logarithmic=True)
    d = re.search(r'd="([^"]*)" class="interval smooth"', figure)[1]
    bars = [tuple(map(int, bar)) for bar in re.findall(r"M(-?\d+),(-?\d+)V(-?\d+)", d)]
    assert [a for a, _, _ in bars] == [round(1000 * (0.08 + k / 2) / 1.16) for k in range(3)], (
        "labels are spaced by their logarithm"
    )
    low, high = 0.1 - 0.05 * 0.8, 0.9 + 0.05 * 0.8
    wanted = [[round(1000 * (high - v) / (high - low)) for v in (mid - 0.3, mid + 0.3)] for mid in y]
    assert [[b, c] for _, b, c in bars] == wanted
    assert [re.sub("<.*?>", "", t) for t in re.findall(r'<span class="tick x"[^>]*>(.*?)</span>', figure)] == [
        "1",
        "2",
        "4",
    ]
    assert "at labels 1" in figure and ">labels<" in figure


def test_an_interval_that_is_not_known_is_not_drawn():
    y = np.array([0.5, 0.6])
    gap = Curve(
        label="arm",
        x=np.array([1.0, 2.0]),
        y=y,
        low=np.array([0.4, math.nan]),
        high=np.array([0.7, math.nan]),
        look="smooth",
    )
    assert re.search(r'd="([^"]*)" class="interval smooth"', chart("Dice", [gap]))[1].count("V") == 1
    none = Curve(label="arm", x=np.array([1.0, 2.0]), y=y, look="smooth")
    assert "interval" not in chart("Dice", [none])
