"""The result of `bench sparse` as lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any

from wavespark.bench.page import verdict

_TITLES = {"conv": "3^3 convolution", "block": "(convolution, batch norm, ReLU) x 2"}


def sparse_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads; every figure is in the document."""
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
