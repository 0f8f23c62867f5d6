"""transfer.html: a curve for every task and mode of the transfer benchmark."""

from collections.abc import Mapping
from typing import Any

from wavespark.downstream.page import conditions, label_chart
from wavespark.downstream.verdict import verdict
from wavespark.pages.markup import Html, tag
from wavespark.pages.page import page

_ONE_BRAIN = "; tissue blocks are places in one brain, not people, and pre-training has seen those of the test too, without labels"


def transfer_page(document: Mapping[str, Any], curves: Mapping[str, Mapping[str, Any]]) -> Html:
    """Build the page of `measure_transfer`'s document and the results of its comparisons."""
    run = document["pretraining"]
    before, after = run["normalised_loss"]
    harmonic = run["harmonic_inpainting"]
    mark = "" if harmonic is None else f"; harmonic inpainting {harmonic:.3f}"
    tissue = _ONE_BRAIN if any("tissue" in c for c in curves) else ""
    header = tag(
        "header",
        tag("p", "wavespark transfer benchmark", class_="kicker"),
        tag("h1", "Does pre-training pay?", class_="verdict"),
        tag(
            "p",
            f"{document['what']}. {run['steps']} steps; normalised loss {before:.3f} to {after:.3f} "
            f"(1 = predicting the mean{mark}).",
            class_="lead",
        ),
        tag("p", f"Target: {document['target']}: ", tag("b", "met" if document["met"] else "missed"), "."),
        tag("p", f"Synthetic tasks: they say nothing about finding aneurysms in patients{tissue}."),
    )
    sections = [
        tag(
            "section",
            tag("h2", name),
            tag("p", verdict(results)),
            label_chart(results["table"], results["main"]),
            tag("p", conditions(results), class_="note"),
        )
        for name, results in curves.items()
    ]
    return page("Does pre-training pay? wavespark", header, tag("main", *sections))
