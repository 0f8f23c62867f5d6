"""people.html: the tables of the benchmark on people, and the same as lines for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from wavespark.downstream.page import label_chart
from wavespark.pages.markup import Html, table, tag
from wavespark.pages.page import page

NAMES = {
    "pre-trained": "pre-trained",
    "scratch": "random weights",
    "plain": "plain U-Net",
    "intensities": "intensities",
    "volume": "head's volume alone",
    "constant": "no features",
}
FIGURES = {
    "dice": "Dice",
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "mae": "mean absolute error",
    "r2": "R2",
}
_NOTE = (
    "Intervals are 95 % over people (bootstrap). A gain is how much better pre-trained is on the same people; for errors, how much "
    "smaller. Random weights, frozen: mean of three initialisations; fine-tuned: trained from scratch. Intensities: for whole heads a "
    "histogram with the head's volume, for voxels the intensity with Gaussian means and derivatives at four scales."
)
_QUICK = "Smoke run: a few steps and repeats. The figures mean nothing."


def verdict(results: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: over which controls pre-training gains, interval above zero."""
    won, lost, open_ = [], [], []
    for row in results:
        for arm, gains in row["gains"].items():
            gain = gains[row["figure"]]
            name = f"{question(row)} over {NAMES[arm]}"
            if gain["low"] is None:
                open_.append(name)
            elif gain["low"] > 0:
                won.append(name)
            elif gain["high"] < 0:
                lost.append(name)
            else:
                open_.append(name)
    parts = [f"Better, interval above zero: {'; '.join(won) or 'nowhere'}."]
    if lost:
        parts.append(f"Worse: {'; '.join(lost)}.")
    return " ".join(
        [*parts, f"No difference shown in {len(open_)} of {len(won) + len(lost) + len(open_)} comparisons."]
    )


def question(row: Mapping[str, Any]) -> str:
    """Name of a row: task, mode and number of labelled people."""
    return f"{row['task']}, {row['mode']}" + ("" if row["labels"] is None else f", {row['labels']} labelled")


def shown(interval: Mapping[str, Any] | None, signed: bool = False) -> str:
    """Format a figure with its interval.

    >>> shown({"value": 0.5, "low": 0.4, "high": 0.6}, signed=True)
    '+0.500 [+0.400, +0.600]'
    """
    if interval is None or interval["value"] is None:
        return "-"
    spec = "+.3f" if signed else ".3f"
    spread = "" if interval["low"] is None else f" [{interval['low']:{spec}}, {interval['high']:{spec}}]"
    return f"{interval['value']:{spec}}{spread}"


def people_page(document: Mapping[str, Any], studies: Sequence[Mapping[str, Any]] = ()) -> Html:
    """Build the page.

    Args:
        document: from `measure_people`.
        studies: results of the fine-tuning of each pre-training, for the chart.
    """
    header = tag(
        "header",
        tag("p", "wavespark transfer benchmark, real people", class_="kicker"),
        tag("h1", "Does pre-training pay?", class_="verdict"),
        tag("p", f"{document['what']}. {_QUICK if document['quick'] else ''}", class_="lead"),
        tag("p", verdict(document["results"])),
        *(tag("p", _pretraining(run)) for run in document["pretraining"]),
    )
    sections = [_section(row) for row in document["results"]]
    chart = label_chart(studies[0]["table"], studies[0]["main"]) if studies else None
    return page(
        "Does pre-training pay? wavespark", header, tag("main", chart, *sections, tag("p", _NOTE, class_="note"))
    )


def _pretraining(run: Mapping[str, Any]) -> str:
    before, after = run["normalised_loss"]
    loss = "" if before is None or after is None else f", held-out normalised loss {before:.3f} to {after:.3f}"
    return f"Pre-training with seed {run['seed']}: {run['steps']} steps on {run['volumes']} volumes{loss}."


def _section(row: Mapping[str, Any]) -> Html:
    main = row["figure"]
    heads = ["arm", *(FIGURES[name] for name in row["arms"]["pre-trained"]), f"gain in {FIGURES[main]}"]
    several = row.get("over_pretrainings", {})
    if several:
        heads.append("gain over pre-trainings")
    rows = []
    for arm, figures in row["arms"].items():
        cells = [NAMES[arm], *(shown(i) for i in figures.values())]
        cells.append(shown(row["gains"].get(arm, {}).get(main), signed=True))
        if several:
            cells.append(shown(several.get(arm), signed=True))
        rows.append(cells)
    caption = f"{question(row)}: {row['people']} people tested"
    return tag("section", tag("h2", question(row)), table(heads, rows, caption=caption, numeric=True))


def people_lines(document: Mapping[str, Any]) -> list[str]:
    """Lines of the result for a terminal."""
    lines = [document["what"], *([_QUICK] if document["quick"] else []), *map(_pretraining, document["pretraining"])]
    for row in document["results"]:
        main = row["figure"]
        lines.append(f"{question(row)}: {FIGURES[main]}, {row['people']} people")
        for arm, figures in row["arms"].items():
            gain = row["gains"].get(arm, {}).get(main)
            tail = "" if gain is None else f"   gain {shown(gain, signed=True)}"
            over = row.get("over_pretrainings", {}).get(arm)
            tail += "" if over is None else f"   over {over['pretrainings']} pre-trainings {shown(over, signed=True)}"
            lines.append(f"  {NAMES[arm]:<20} {shown(figures[main]):<26}{tail}".rstrip())
    return [*lines, verdict(document["results"]), f"{document['minutes']} minutes; again: {document['command']}"]
