"""Results of benchmarks as lines of text; every figure is in the JSON document."""

from collections.abc import Iterator, Mapping
from typing import Any

_TITLES = {"conv": "3^3 convolution", "block": "(convolution, batch norm, ReLU) x 2"}


def verdict(met: bool | None) -> str:
    """Return `met` or `MISSED`, or nothing where no target was set."""
    return "" if met is None else "met" if met else "MISSED"


def sparse_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of `bench sparse` for a terminal."""
    environment = document["environment"]
    yield document["what"]
    yield f"torch {environment['torch']}, {environment['threads']} thread(s), {environment['processor']}; medians of {document['rounds']} rounds"
    for operation, title in _TITLES.items():
        for channels in dict.fromkeys(row["channels"] for row in document["dense"]):
            chosen = (operation, channels)
            yield ""
            yield (
                f"{f'{title}, {channels} channels':<45} {'user s':>7} {'wall s':>7} {'visible':>7} {'ratio':>6} {'/ share':>7} {'limit':>6}"
                f" {'':<6} ratio to the fastest dense form"
            )
            for row in document["dense"]:
                if (row["operation"], row["channels"]) == chosen:
                    yield f"  {row['form']:<43} {row['user_seconds']:>7.3f} {row['wall_seconds']:>7.3f}"
            for row in document["results"]:
                if (row["operation"], row["channels"]) == chosen:
                    yield _result(row)
    yield ""
    yield f"ratio: user CPU, of a convolution to '{document['results'][0]['against']}', of a block to the fastest of three dense forms"
    for form, words in document["dense_variants_of_the_block"].items():
        yield f"  {form}: {words}"
    yield ""
    for row in document["memory"]:
        yield (
            f"extra peak memory, {row['operation']}, {row['channels']} channels, {row['form']}: {row['extra_peak_mb']:.0f} MB; "
            f"{row['dense_form']}: {row['dense_extra_peak_mb']:.0f} MB: {verdict(row['met'])}"
        )
    for row in document["index"]:
        found = f"halo {row['halo_milliseconds']:.2f} ms, borders {row['borders_milliseconds']:.2f} ms"
        yield f"index of {row['form']}: {found}; below {row['limit']:g} ms: {verdict(row['met'])}"
    sites = document["sites"]
    times = ", ".join(f"{int(n):,}: {s:.2f} s" for n, s in sites["user_seconds"].items())
    yield (
        f"sparse voxels by number of sites: {times}; a site among the most costs {sites['cost_of_a_site_most_to_fewest']:.2f} x one among the fewest, "
        f"at most {sites['limit']}: {verdict(sites['met'])}"
    )
    for name, why in document["engines_skipped"].items():
        yield f"engine {name} left out: {why}"
    yield f"again: {document['command']}"


def _result(row: Mapping[str, Any]) -> str:
    limit = "     -" if row["limit"] is None else f"{row['limit']:>6.3f}"
    return (
        f"  {row['form']:<43} {row['user_seconds']:>7.3f} {row['wall_seconds']:>7.3f} {row['visible_share']:>7.3f} {row['user_ratio']:>6.3f} "
        f"{row['user_ratio_over_share']:>7.2f} {limit} {verdict(row['met']):<6} {row['user_ratio_to_fastest']:.3f} {verdict(row['met_against_fastest'])}"
    ).rstrip()


def step_lines(document: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of `bench step` for a terminal."""
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
