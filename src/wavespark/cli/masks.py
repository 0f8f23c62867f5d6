"""`wavespark masks`: what a masking does, in numbers and as a picture."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wavespark.cli.console import emit_json, note, say
from wavespark.errors import DependencyError, SettingsError
from wavespark.shapes import Triple, product
from wavespark.text import printable

if TYPE_CHECKING:
    from wavespark.masking import LegacyRule, NestedMasking, NestedMasks

MOST_CELLS = 2**24
"""More cells in all than anyone looks at; a crop of 4096^3 voxels in cells of 16."""

KINDS = ("visible", "global_only", "local")
NAMES = {"visible": "visible", "global_only": "hidden, global only", "local": "hidden, local"}
COLOURS = {"visible": "#f2e3c6", "global_only": "#6baed6", "local": "#08306b"}


def command(
    grid: Annotated[str, typer.Option(metavar="D,H,W", help="Cells along depth, height, width.")] = "8,8,8",
    batch: Annotated[int, typer.Option(help="Volumes to draw for.")] = 2,
    ratio: Annotated[float, typer.Option(help="Share of the cells to hide, between 0 and 1.")] = 0.6,
    local_ratio: Annotated[float, typer.Option(help="Share of the hidden cells to hide locally, too.")] = 0.8,
    block: Annotated[str, typer.Option(metavar="N|adaptive", help="Block edge in cells.  [1; with --legacy 4]")] = "",
    seed: Annotated[int, typer.Option(help="Another seed draws other cells.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a grid that is a single block.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say how the numbers come about.")] = False,
    legacy: Annotated[bool, typer.Option("--legacy", help="Use the seed's rule, to see what is wrong.")] = False,
    output: Annotated[Path | None, typer.Option(metavar="PNG", help="Also draw the cells into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what a masking does to a grid of cells, in numbers and as a picture."""
    cells = _parsed_grid(grid)
    if batch < 1 or batch * product(cells) > MOST_CELLS:
        raise SettingsError(f"--batch {batch} of grid {cells}: at least 1 volume and at most {MOST_CELLS} cells in all")
    if output is not None and output.suffix.lower() != ".png":
        raise SettingsError(f"--output {output.name}: the picture is a PNG, give a name that ends in .png")

    from wavespark import randomness
    from wavespark.masking import LegacyRule, NestedMasking

    edge = _parsed_block(block or ("4" if legacy else "1"))
    if legacy:
        rule = LegacyRule(grid=cells, block=edge, ratio=ratio, local_ratio=local_ratio)
        masks = rule.sample(batch=batch, generator=randomness.stream(seed, purpose="mask"))
        explanation = _legacy_text(rule, batch) if explain else ["The seed's rule: never train with it.", ""]
        document = {**_numbers(rule, masks), "table": _legacy_rows(rule, batch)}
    else:
        masking = NestedMasking(grid=cells, block=edge, ratio=ratio, local_ratio=local_ratio, strict=strict)
        masks = masking.sample(draws=[(seed, 0, f"volume {b}") for b in range(batch)])
        explanation = _explanation(masking) if explain else []
        document = _numbers(masking, masks)
    if output is not None:
        draw(masks, output)
        note(f"picture: {printable(output)}")
    if as_json:
        emit_json(document | ({"explanation": explanation} if explain else {}))
    else:
        say("\n".join([*explanation, *_summary(document), "", *_picture(masks)]))


def _parsed_grid(text: str) -> Triple:
    words = text.replace("x", ",").replace("×", ",").split(",")
    try:
        d, h, w = (int(word) for word in (words if len(words) > 1 else words * 3))
    except ValueError:
        d = h = w = 0
    if min(d, h, w) < 1:
        raise SettingsError(f"--grid takes three whole numbers of at least 1, got {text!r}. For example --grid 8,8,8")
    return d, h, w


def _parsed_block(text: str) -> Any:
    if text == "adaptive":
        return text
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"--block takes a whole number or adaptive, got {text!r}. For example --block 4") from None


def _numbers(rule: "LegacyRule | NestedMasking", masks: "NestedMasks") -> dict[str, Any]:
    kinds = ("visible", "hidden", "global_only", "local")
    counts = {kind: getattr(masks, kind).sum((1, 2, 3)).tolist() for kind in kinds}
    volumes = [dict(zip(counts, row, strict=True)) for row in zip(*counts.values(), strict=True)]
    return {
        "rule": type(rule).__name__,
        "grid": list(rule.grid),
        "batch": len(volumes),
        "ratio": rule.ratio,
        "local_ratio": rule.local_ratio,
        "block": rule.block,
        "cells": masks.valid.numel(),
        **{kind: sum(values) for kind, values in counts.items()},
        **masks.shares(),
        "volumes": volumes,
    }


def _summary(numbers: dict[str, Any]) -> list[str]:
    grid = " x ".join(map(str, numbers["grid"]))
    settings = f"ratio {numbers['ratio']}, block {numbers['block']}"
    title = f"{numbers['batch']} x {grid} = {numbers['cells']} cells, {settings}"
    rows = [f"  {NAMES[k]:<20} {numbers[k]:>8}  {100 * numbers[k] / numbers['cells']:5.1f} %" for k in KINDS]
    return [title, *rows]


def _explanation(rule: "NestedMasking") -> list[str]:
    n, hidden, local = rule.num_cells, rule.num_hidden, rule.num_local
    limit = f"never fewer than 1 nor more than {hidden - 1}" if hidden > 1 else "because a single cell cannot be split"
    return [
        "In every volume exactly:",
        f"  hidden = floor({rule.ratio} * {n} + 0.5) = {hidden}, never fewer than 1 nor more than {n - 1}",
        f"  local  = floor({rule.local_ratio} * {hidden} + 0.5) = {local} of them, {limit}",
        f"Blocks of {_by(rule.blocks.block_shape)} cells are hidden in random order, the last one cut to fit.",
        f"Every cell is hidden with probability {hidden}/{n} = {hidden / n:.4f}.",
        "The draw depends on seed, step and volume id alone: not on the batch, the worker or a restart.",
        "",
    ]


def _legacy_rows(rule: "LegacyRule", batch: int) -> list[dict[str, Any]]:
    """The seed's table, with a row for this grid if it is not in it."""
    from wavespark.masking import legacy_table

    seed_rules = legacy_table()
    rows = []
    for r in [*seed_rules, *([] if rule in seed_rules else [rule])]:
        names = ("unmasked", "global_masked", "local_masked", "probability")
        frequent = r.most_frequent(batch)
        rows.append(
            {
                "grid": list(r.grid),
                "block": r.block,
                "ratio": r.ratio,
                "blocks": list(r.blocks),
                "masked_blocks": r.num_masked,
                "hides_everything": r.hides_everything,
                "unmasked_of_a_volume": list(r.visible_range),
                "batch": batch,
                "most_frequent_draw": None if frequent is None else dict(zip(names, frequent, strict=True)),
            }
        )
    return rows


def _legacy_text(rule: "LegacyRule", batch: int) -> list[str]:
    rows = _legacy_rows(rule, batch)
    lines = ["The seed's rule: masked blocks = max(1, int(ratio * blocks))", ""]
    lines += [f"{'grid':<10} {'block':<5} {'blocks':<14} {'masked':<18} result"]
    for row in rows:
        total = product(row["blocks"])
        blocks = f"{_by(row['blocks'])} = {total}"
        masked = f"max(1, {row['ratio'] * total:.1f}) = {row['masked_blocks']}"
        low, high = row["unmasked_of_a_volume"]
        some = f"some unmasked: {low if low == high else f'{low} to {high}'} of {product(row['grid'])} voxels"
        result = "ALL masked" if row["hides_everything"] else some
        lines += [f"{_by(row['grid']):<10} {row['block']:<5} {blocks:<14} {masked:<18} {result}"]
    for row in rows:
        frequent = row["most_frequent_draw"]
        if frequent is not None and not row["hides_everything"]:
            cells = batch * product(row["grid"])
            chance = f"{100 * frequent['probability']:.0f} % of all"
            lines += ["", f"Batch {batch} x {_by(row['grid'])} = {cells} voxels, the most frequent draw ({chance}):"]
            for name in ("unmasked", "global_masked", "local_masked"):
                lines += [f"  {name.replace('_', ' '):<14} {frequent[name]:>6}  {100 * frequent[name] / cells:5.1f} %"]
    return [
        *lines,
        "",
        "Why it is wrong: a grid up to 4x4x4 is one block, and max(1, ...) masks it: nothing visible, training fails.",
        "int() rounds 4.8 of 8 blocks down to 4: 50 % are hidden, not 60 %. Blocks cut by the border make it vary.",
        "Global and local are two independent draws, so their shares fluctuate, too.",
        "wavespark hides an exact number of cells on every grid of two cells or more: try this grid without --legacy.",
        "",
    ]


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _picture(masks: "NestedMasks", width: int = 78, most_rows: int = 24) -> list[str]:
    """The first volume's slices side by side, as many as fit."""
    marks = {"visible": "·", "global_only": "▒", "local": "█"}
    try:
        "".join(marks.values()).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        marks = {"visible": ".", "global_only": "+", "local": "#"}
    depth, height, columns = masks.visible.shape[1:]
    columns, height = min(columns, width), min(height, most_rows)
    shown = _spread(depth, max(1, (width + 2) // (columns + 2)))
    rows = []
    for h in range(height):
        row = []
        for d in shown:
            kinds = [next(k for k in KINDS if getattr(masks, k)[0, d, h, w]) for w in range(columns)]
            row.append("".join(marks[kind] for kind in kinds))
        rows.append("  ".join(row))
    titles = "  ".join(f"d {d}"[:columns].ljust(columns) for d in shown)
    legend = ", ".join(f"{marks[kind]} {NAMES[kind]}" for kind in KINDS)
    cut = "" if (height, columns) == tuple(masks.visible.shape[2:]) else f", its first {height} x {columns} cells"
    return [f"slices of the first volume{cut}: {legend}", titles, *rows]


def _spread(total: int, most: int) -> list[int]:
    """At most so many indices, evenly spread from first to last."""
    if total <= most:
        return list(range(total))
    return [round(i * (total - 1) / max(most - 1, 1)) for i in range(most)]


def draw(masks: "NestedMasks", path: Path, most_volumes: int = 4, most_slices: int = 8) -> None:
    """Draws slices of the first volumes into a PNG.

    Raises:
        SettingsError: if the file cannot be written.
        DependencyError: if matplotlib is not installed.
    """
    try:
        from matplotlib.colors import ListedColormap
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise DependencyError("matplotlib", "report", "a picture") from None
    kind_BDHW = (masks.global_only.int() + 2 * masks.local.int()).numpy()
    volumes, slices = min(len(kind_BDHW), most_volumes), _spread(kind_BDHW.shape[1], most_slices)
    colours = ListedColormap(list(COLOURS.values()))
    figure = Figure(figsize=(1.4 * len(slices) + 0.6, 1.5 * volumes + 0.9), dpi=150, layout="constrained")
    axes = figure.subplots(volumes, len(slices), squeeze=False)
    for b, row in enumerate(axes):
        for d, axis in zip(slices, row, strict=True):
            axis.imshow(kind_BDHW[b, d], cmap=colours, vmin=0, vmax=2, interpolation="none")
            axis.set(xticks=[], yticks=[])
            if b == 0:
                axis.set_title(f"d {d}", fontsize=8)
        row[0].set_ylabel(f"volume {b}", fontsize=8)
    patches = [Patch(facecolor=COLOURS[kind], edgecolor="0.5", label=NAMES[kind]) for kind in KINDS]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(slices), 3), fontsize=8, frameon=False)
    try:
        figure.savefig(path)
    except OSError as error:
        raise SettingsError(f"--output {path}: {error.strerror}. Choose a folder that exists and is writable") from None
