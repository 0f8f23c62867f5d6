"""RUN/report.html of a comparison: verdict, curves over labels and steps, tables, and what was held
equal."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wavespark.downstream.naming import figure_label
from wavespark.downstream.pictures import case_figures
from wavespark.downstream.verdict import verdict
from wavespark.pages.chart import Curve, chart, smoothed
from wavespark.pages.markup import Html, join, table, tag
from wavespark.pages.page import page

LOOKS = ("smooth", "validation", "inpainting", "third")
"""Looks of the arms in their order; told apart by colour and by dashes."""
ARMS = ("pre-trained", "scratch", "plain")
"""Order of the arms in charts."""
_MOST_FIGURES = 12


def study_page(results: Mapping[str, Any], run: Path | None = None) -> Html:
    """Build the page of `run_study`'s results.

    Args:
        results: from `run_study`.
        run: folder of the comparison, for its loss curves and pictures.
    """
    kind, main = results["task"]["kind"], results["main"]
    names = list(dict.fromkeys(n for r in results["table"] for n in r["figures"]))
    names = [main, *(n for n in names if n != main)][:_MOST_FIGURES]
    title = f"Fine-tuning: {kind}"
    header = tag(
        "header",
        tag("p", "wavespark fine-tuning report", class_="kicker"),
        tag("h1", title, class_="verdict"),
        tag("p", verdict(results), class_="lead"),
    )
    sections = [
        (
            "Figures",
            join(label_chart(results["table"], main), _table(results, results["table"], names, "Figures of every arm")),
        ),
        ("Segmentations of test patients", _cases(results, run)),
        ("Training", None if run is None else loss_chart(run)),
        ("Pre-trained minus scratch, on the same patients", _gains(results, results["gains"], names)),
        ("Pre-trained minus plain U-Net, on the same patients", _gains(results, results.get("plain_gains", ()), names)),
        ("Learning rates", _rates(results.get("trainings", ()))),
        ("What was held equal", tag("p", conditions(results))),
    ]
    parts = [tag("section", tag("h2", words), content) for words, content in sections if content]
    return page(f"{title}: wavespark fine-tuning report", header, tag("main", *parts))


def _cases(results: Mapping[str, Any], run: Path | None) -> Html | None:
    figures = None if run is None else case_figures(run, results["task"].get("names", ()))
    words = (
        "Predictions of the pre-trained arm with all labels. Each row is the slice with the most labelled tissue, as radiologists "
        "see it: the patient's right (R) on the left, anterior (A) or superior (S) up. Lines are the borders of the classes."
    )
    return figures and join(tag("p", words), figures)


def loss_chart(run: Path) -> Html | None:
    """Draw the training loss of every arm: its training with the most labels and the first seed.

    Args:
        run: folder of the comparison.

    Returns:
        The chart; `None` if no training is recorded.
    """
    parts: dict[str, tuple[int, list[float]]] = {}
    for path in sorted((run / "parts").glob("*.json")):
        try:
            part = json.loads(path.read_bytes())
            arm, labels, losses = str(part["arm"]), int(part["labels"]), [float(x) for x in part["loss"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if part.get("seed") == 0 and losses and labels > parts.get(arm, (0, []))[0]:
            parts[arm] = labels, losses
    curves, over = [], 1
    for look, arm in zip(LOOKS, sorted(parts, key=list(ARMS).index if set(parts) <= set(ARMS) else str), strict=False):
        y, over = smoothed(np.array(parts[arm][1], np.float64))
        curves.append(Curve(label=f"{arm}, {parts[arm][0]} labels", x=np.arange(1.0, len(y) + 1), y=y, look=look))
    return chart("Training loss", curves, note=f"Mean of {over} step(s); lower is better.", tall=True)


def conditions(results: Mapping[str, Any]) -> str:
    """Describe what was held equal between the arms, and what the figures do not show."""
    head = "frozen encoder" if results["frozen"] else "the whole network trained"
    return (
        f"{results['steps']} steps in every arm, same windows, same head ({results['decoder']} decoder, {head}), {results['seeds']} seed(s); "
        f"{results['test_volumes']} test volume(s) of {results['test_patients']} patient(s). Intervals are 95 % over test patients (bootstrap); they do not "
        "cover other data sets; one test patient has none, and without spread every draw of the patients gives the same figure. "
        "Pre-training may have seen the images, never the labels, of test volumes if they were in its store."
    )


def _table(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], names: Sequence[str], caption: str) -> Html:
    heads = [figure_label(name, results.get("figure_names", {})) for name in names]
    cells = [(r["arm"], r["labels"], *(_figure(r["figures"].get(n)) for n in names)) for r in rows]
    return table(("Arm", "Labels", *heads), cells, caption=caption, numeric=True)


def _gains(results: Mapping[str, Any], gains: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Html | None:
    if not gains:
        return None
    rows = [{"arm": "difference", **row} for row in gains]
    return _table(results, rows, names, "Difference of the two arms")


def _rates(trainings: Sequence[Mapping[str, Any]]) -> Html | None:
    """Learning rate and time of every training; with tuning also the score of each candidate."""
    if not trainings:
        return None
    cells = [
        (
            t["arm"],
            t["labels"],
            t["seed"],
            f"{t['learning_rate']:.1e}",
            f"{t['seconds']:.0f}",
            _candidates(t.get("tuning")),
        )
        for t in trainings
    ]
    header = ("Arm", "Labels", "Seed", "Learning rate", "Seconds", "Candidates: score in cross-validation")
    return table(header, cells, caption="Learning rates of all trainings", numeric=True)


def _candidates(tuning: Mapping[str, Any] | None) -> str:
    if not tuning:
        return "default"
    pairs = zip(tuning["rates"], tuning["scores"], strict=True)
    text = ", ".join(f"{rate:.1e}: {'diverged' if score is None else f'{score:.3f}'}" for rate, score in pairs)
    return f"{text} ({tuning['validated_on']})"


def _figure(figure: Mapping[str, Any] | None) -> object:
    if figure is None or figure["value"] is None:
        return "\u2013"
    if figure["low"] is None or figure["low"] == figure["high"]:
        why = "no interval" if figure["low"] is None else "no spread"
        patients = figure.get("patients")
        words = why if patients is None else f"{why}, {patients} patient(s)"
        return join(f"{figure['value']:.3f}", tag("br"), tag("small", words))
    return join(f"{figure['value']:.3f}", tag("br"), tag("small", f"{figure['low']:.3f} \u2026 {figure['high']:.3f}"))


def label_chart(rows: Sequence[Mapping[str, Any]], name: str) -> Html | None:
    """Draw a figure over the number of labels (logarithmic), a curve an arm, with its intervals.

    Args:
        rows: `arm`, `labels`, `figures[name]` with `value`, `low`, `high`.
        name: which figure.

    Returns:
        The chart; `None` with fewer than two numbers of labels, or where no value is known.
    """
    if len({row["labels"] for row in rows}) < 2:
        return None
    arms = dict.fromkeys(row["arm"] for row in rows)
    curves = []
    for arm, look in zip(arms, LOOKS, strict=False):
        own = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["labels"])
        x = np.array([row["labels"] for row in own], np.float64)
        y, low, high = (_values(own, name, key) for key in ("value", "low", "high"))
        curves.append(Curve(label=arm, x=x, y=y, low=low, high=high, look=look, dots=True))
    title = f"{figure_label(name, {})} over the number of labelled volumes"
    return chart(title, curves, tall=True, x_title="labels", logarithmic=True, note="Bars: 95 % over test patients.")


def _values(rows: Sequence[Mapping[str, Any]], name: str, key: str) -> np.ndarray:
    values = [(row["figures"].get(name) or {}).get(key) for row in rows]
    return np.array([math.nan if v is None else v for v in values], np.float64)
