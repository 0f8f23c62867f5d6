"""The first screen: did it learn, in words, in four numbers and in one picture."""

import numpy as np

from wavespark.pages.markup import Html, join, tag
from wavespark.pages.numbers import count, duration, number, parameters, share
from wavespark.report.figures import glance
from wavespark.report.record import RunRecord
from wavespark.report.values import finite, mapping, sequence
from wavespark.report.verdict import judge, moved
from wavespark.report.whole import opening_slice

_HELD_OUT = {
    "region": "Held out here: a region of the volumes, not other people.",
    "patients": "Held out here: patients that were never trained on.",
}


def opening(record: RunRecord, links: Html) -> Html:
    """The head of the page; `links` lead to its other parts."""
    verdict = judge(record)
    words = tag(
        "div",
        tag("p", "Did it learn?", class_="question"),
        tag("h1", verdict.title, class_=f"verdict {verdict.learned}"),
        *(tag("p", sentence, class_="lead") for sentence in verdict.sentences),
        class_="words",
    )
    notes = [tag("li", note) for note in (*verdict.warnings, *_notes(record))]
    return tag(
        "header",
        tag("p", "wavespark pre-training report · ", tag("span", record.name, class_="id"), class_="kicker"),
        tag("div", words, _picture(record), class_="opening"),
        tag("dl", *_cards(record), class_="cards"),
        tag("p", " · ".join(_size(record)), class_="note"),
        tag("ul", *notes, class_="warnings") if notes else None,
        _missing(record),
        links,
    )


def _picture(record: RunRecord) -> Html | None:
    if record.whole is not None:
        return opening_slice(record.whole)
    return glance(record.examples) if record.examples else None


def _cards(record: RunRecord) -> list[Html]:
    before, after = finite(record.first, "normalised_loss"), finite(record.last, "normalised_loss")
    own_mean = finite(record.last, "inpainting_own_mean")
    easier = "from the same visible voxels" if own_mean is None else f"{number(own_mean)} granted each cell's mean"
    refused = f"{count(len(sequence(record.data, 'refused')))} refused" if record.data else "data.json is missing"
    arrow = tag("span", " → ", class_="to")
    loss = join(number(before), arrow, number(after)) if moved(record) else number(after)
    return [
        _card("Normalised loss, held out", loss, "1 = predicting the mean"),
        _card("Trilinear inpainting", number(finite(record.last, "inpainting")), easier),
        _card("Volumes used", count(finite(record.data, "used")), refused),
        _card("Time a step", duration(record.seconds_per_step), _visible(record)),
    ]


def _card(title: str, value: object, note: str) -> Html:
    return tag("div", tag("dt", title), tag("dd", value, class_="value"), tag("dd", note, class_="note"))


def _visible(record: RunRecord) -> str:
    shares = record.metrics["visible_share"]
    shares = shares[np.isfinite(shares)]
    if not len(shares):
        return "share of visible cells not recorded"
    return f"the encoder sees {share(float(np.mean(shares)))} of the cells"


def _size(record: RunRecord) -> list[str]:
    model = record.summary.get("model") or mapping(record.settings, "model").get("name") or record.settings.get("model")
    size, seconds = finite(record.summary, "parameters"), finite(record.summary, "seconds")
    words = [
        model if isinstance(model, str) else "",
        "" if size is None else f"{parameters(size)} parameters",
        count(record.step, "step"),
        "" if seconds is None else f"in {duration(seconds)}",
    ]
    return [word for word in words if word]


def _notes(record: RunRecord) -> list[str]:
    kind = mapping(record.data, "held_out").get("kind")
    notes = [_HELD_OUT[kind]] if isinstance(kind, str) and kind in _HELD_OUT else []
    if resumed := sequence(record.summary, "resumed_from"):
        times = "once" if len(resumed) == 1 else f"{len(resumed)} times"
        steps = ", ".join(str(step) for step in resumed[:8]) + (" and later" if len(resumed) > 8 else "")
        notes.append(f"Stopped and continued {times}, from step {steps}.")
    return notes


def _missing(record: RunRecord) -> Html | None:
    if not record.missing:
        return None
    sentences = [tag("li", sentence) for sentence in record.missing]
    return tag("aside", tag("h2", "Not in this report"), tag("ul", *sentences), class_="missing")
