"""The result of the bench of a step in lines of text."""

from collections.abc import Iterator
from typing import Any

from wavespark.bench.page import verdict


def step_lines(document: dict[str, Any]) -> Iterator[str]:
    """What `measure_step` found, for a terminal."""
    environment, wide = document["environment"], max(len(form) for form in document["forms"])
    yield document["what"]
    yield f"torch {environment['torch']}, {environment['threads']} thread(s), {environment['processor']}"
    yield ""
    yield f"{'form':<{wide}} {'user CPU s':>10} {'wall s':>8} {'page faults':>12}   medians of {document['rounds']} rounds"
    for form, cost in document["forms"].items():
        yield f"{form:<{wide}} {cost['user_seconds']:>10.3f} {cost['wall_seconds']:>8.3f} {cost['minor_faults']:>12.0f}"
    yield ""
    yield f"{'encoder':<20} {'visible':>7} {'user ratio':>10} {'/ share':>8} {'wall ratio':>10} {'/ share':>8}   against the faster form of both"
    for r in document["results"]:
        yield (
            f"{r['form']:<20} {r['visible_share']:>7.3f} {r['user_ratio']:>10.3f} {r['user_ratio_over_share']:>8.3f} {r['wall_ratio']:>10.3f} "
            f"{r['wall_ratio_over_share']:>8.3f}   {r['faster_dense_form']}: {verdict(r['met'])}"
        )
    if document["steps"]:
        yield ""
        yield f"{'whole step':<20} {'visible':>7} {'user ratio':>10} {'bound':>8} {'decoding':>10}   against the step with everything visible"
    for r in document["steps"]:
        yield (
            f"{r['decoder'] + ', ' + r['form']:<20} {r['visible_share']:>7.3f} {r['user_ratio']:>10.3f} {r['bound']:>8.3f} "
            f"{r['decode_share']:>9.0%}   {verdict(r['met'])}"
        )
    if document["parts"]:
        whole = sum(document["parts"].values())
        yield ""
        yield "a step of a run with the first decoder and share: " + ", ".join(
            f"{name} {seconds / whole:.0%}" for name, seconds in document["parts"].items()
        )
    yield ""
    differs = document["dense_copy_differs_by"]
    copy = (
        "There is no dense copy of this encoder."
        if differs is None
        else f"Dense copy and encoder differ by {differs:.1e}."
    )
    yield f"target: user ratio of the encoder <= {document['target']} x visible share. {copy}"
    if document["steps"]:
        yield "bound: (target x v E + D) / (E + D), from the measured times of encoding and decoding; the light decoder at most 35 % at 60 % hidden."
    yield f"again: {document['command']}"
