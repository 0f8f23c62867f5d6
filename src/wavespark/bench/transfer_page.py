"""transfer.html: a curve and a table for every task and mode. Self-contained, no script."""

import html
from collections.abc import Mapping
from typing import Any

from wavespark.downstream.page import conditions, curve_svg, verdict

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#222}svg{max-width:100%;height:auto}"""


def transfer_page(document: Mapping[str, Any], curves: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of `measure_transfer`'s document and the results of its comparisons."""
    head = document["pretraining"]
    before, after = head["normalised_loss"]
    harmonic = head["harmonic_inpainting"]
    mark = "" if harmonic is None else f"; harmonic inpainting {harmonic:.3f}"
    tissue = "; tissue blocks are places in one brain, not people, and pre-training has seen those of the test too, without labels"
    parts = [
        f"<h1>Does pre-training pay?</h1><p>{html.escape(document['what'])}. {head['steps']} steps; normalised loss {before:.3f} to {after:.3f} "
        f"(1 = predicting the mean{mark}).</p>",
        f"<p>Target: {html.escape(document['target'])}: <b>{'met' if document['met'] else 'missed'}</b>. "
        f"Synthetic tasks: they say nothing about finding aneurysms in patients{tissue if any('tissue' in c for c in curves) else ''}.</p>",
    ]
    for name, results in curves.items():
        parts.append(
            f"<h2>{html.escape(name)}</h2><p>{html.escape(verdict(results))}</p>{curve_svg(results['table'], results['main'])}"
        )
        parts.append(f"<p><small>{html.escape(conditions(results))}</small></p>")
    body = "\n".join(parts)
    head_of_page = f'<head><meta charset="utf-8"><title>wavespark: transfer</title><style>{_STYLE}</style></head>'
    return f'<!doctype html><html lang="en">{head_of_page}<body>{body}</body></html>\n'
