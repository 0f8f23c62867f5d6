"""`wavespark masks`: the cells that a run or a masking hides, in numbers and as a picture."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wavespark.cli.checks import require_settings
from wavespark.cli.console import emit_json, note, say
from wavespark.cli.list import config_names
from wavespark.errors import DependencyError, SettingsError
from wavespark.shapes import Triple, product
from wavespark.text import printable

if TYPE_CHECKING:
    from torch import Tensor

    from wavespark.config import PretrainSettings
    from wavespark.masking import LegacyRule, NestedMasking, NestedMasks

MOST_CELLS = 2**24
"""Largest number of cells in all volumes; a crop of 4096^3 voxels in cells of 16."""

KINDS = ("visible", "global_only", "local")
"""Kinds of cells of the 2025-10 system's rule."""
RUN_KINDS = ("visible", "hidden", "second_view")
"""Kinds of cells of a run; the second view covers hidden cells."""
NAMES = {
    "visible": "visible",
    "global_only": "hidden, global only",
    "local": "hidden, local",
    "hidden": "hidden",
    "second_view": "hidden, in the second view",
}
COLOURS = {
    "visible": "#f2e3c6",
    "global_only": "#6baed6",
    "local": "#08306b",
    "hidden": "#08306b",
    "second_view": "#6baed6",
}
MARKS = {"visible": "·", "global_only": "▒", "local": "█", "hidden": "█", "second_view": "▒"}
ASCII_MARKS = {"visible": ".", "global_only": "+", "local": "#", "hidden": "#", "second_view": "+"}


def command(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG",
            help="Training config, e.g. mim (see wavespark list), or the path of a TOML file.",
            autocompletion=config_names,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE ...]", help="Settings of CONFIG to change, e.g. mask.ratio=0.75."),
    ] = None,
    step: Annotated[int, typer.Option(min=1, help="Training step to show, counted from 1; only with CONFIG.")] = 1,
    grid: Annotated[
        str, typer.Option(metavar="D,H,W", help="Number of cells along depth, height and width; only without CONFIG.")
    ] = "8,8,8",
    batch: Annotated[int, typer.Option(help="Number of volumes to draw masks for.")] = 2,
    ratio: Annotated[
        float, typer.Option(help="Share of the cells to hide, between 0 and 1; only without CONFIG.")
    ] = 0.6,
    local_ratio: Annotated[
        float,
        typer.Option(
            help="Share of the hidden cells that are also hidden at the second (local) level; only without CONFIG."
        ),
    ] = 0.8,
    block: Annotated[
        str,
        typer.Option(
            metavar="N|adaptive",
            help="Edge of the blocks that are hidden together, in cells.  [default: 1; 4 with --legacy]",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Random seed; only without CONFIG, which has the setting run.seed.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if the grid is a single block.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Explain how the counts are computed.")] = False,
    legacy: Annotated[
        bool, typer.Option("--legacy", help="Show the original, faulty rule of the 2025-10 system instead.")
    ] = False,
    output: Annotated[Path | None, typer.Option(metavar="PNG", help="Also draw the cells into this PNG file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Show which cells of a crop are hidden.

    A cell is the block of voxels that is hidden or visible as a whole. With CONFIG, shows the cells
    that a training run hides at one step. Without CONFIG, shows the two-level masking of the
    2025-10 system (this package's predecessor) on a grid of cells, with exact counts.

    Examples: `wavespark masks tiny-cpu --step 100`; `wavespark masks --grid 8,8,8 --explain`.
    """
    if output is not None and output.suffix.lower() != ".png":
        raise SettingsError(f"--output {output.name}: the picture is a PNG, give a name that ends in .png")
    if config is not None:
        require_settings(settings, "mask.ratio=0.75")
        explanation, document, layers = _of_run(config, settings or [], step, batch)
    else:
        cells = _parsed_grid(grid)
        _check_size(batch, cells)
        edge = _parsed_block(block or ("4" if legacy else "1"))
        if legacy:
            explanation, document, layers = _of_legacy(cells, edge, ratio, local_ratio, batch, seed, explain)
        else:
            explanation, document, layers = _of_grid(
                cells, edge, ratio, local_ratio, batch, seed, strict=strict, explain=explain
            )
    if output is not None:
        draw(layers, output)
        note(f"picture: {printable(output)}")
    if as_json:
        emit_json(document | ({"explanation": explanation} if explain or config is not None else {}))
    else:
        say("\n".join([*explanation, *_summary(document), "", *_picture(layers)]))


Layers = Mapping[str, "Tensor"]
"""bool [B, D, H, W] for each kind of cell; every cell is of one kind."""
Shown = tuple[list[str], dict[str, Any], Layers]
"""Explanation, numbers, cells."""


def _check_size(batch: int, cells: Triple) -> None:
    if batch < 1 or batch * product(cells) > MOST_CELLS:
        raise SettingsError(f"--batch {batch} of grid {cells}: at least 1 volume and at most {MOST_CELLS} cells in all")


def _of_grid(
    cells: Triple, edge: Any, ratio: float, local_ratio: float, batch: int, seed: int, *, strict: bool, explain: bool
) -> Shown:
    _check(cells, edge, ratio, local_ratio, strict=strict)
    from wavespark.masking import NestedMasking

    masking = NestedMasking(grid=cells, block=edge, ratio=ratio, local_ratio=local_ratio, strict=strict)
    masks = masking.sample(draws=[(seed, 0, f"volume {b}") for b in range(batch)])
    layers = {kind: getattr(masks, kind) for kind in KINDS}
    return _explanation(masking) if explain else [], _numbers(masking, masks), layers


def _check(cells: Triple, edge: Any, ratio: float, local_ratio: float, *, strict: bool = False) -> None:
    """Check the numbers of a masking before torch is imported.

    Raises:
        MaskError: if such a masking is not possible.
    """
    from wavespark.masking.grid import check_grid, checked_ratio

    checked_ratio(ratio, "ratio")
    checked_ratio(local_ratio, "local_ratio")
    check_grid(cells, edge, strict=strict)


def _of_legacy(
    cells: Triple, edge: Any, ratio: float, local_ratio: float, batch: int, seed: int, explain: bool
) -> Shown:
    _check(cells, edge, ratio, local_ratio)
    from wavespark import randomness
    from wavespark.masking import LegacyRule

    rule = LegacyRule(grid=cells, block=edge, ratio=ratio, local_ratio=local_ratio)
    masks = rule.sample(batch=batch, generator=randomness.stream(seed, purpose="mask"))
    explanation = _legacy_text(rule, batch) if explain else ["The rule of the 2025-10 system: never train with it.", ""]
    layers = {kind: getattr(masks, kind) for kind in KINDS}
    return explanation, {**_numbers(rule, masks), "table": _legacy_rows(rule, batch)}, layers


def _of_run(config: str, words: Sequence[str], step: int, batch: int) -> Shown:
    """Return the masks that a run with this config draws at a step, for made-up samples whose crops
    are all head."""
    from wavespark.config import load_pretraining

    settings = load_pretraining(config, words)
    cell = settings.cell
    plan = settings.mask_plan(cell)
    _check_size(batch, plan.grid)
    keys = [f"volume {b}" for b in range(batch)]
    footprint = _footprint(settings, cell, keys, step)
    masks = plan.masks(keys, step) if footprint is None else plan.masks_around(footprint, keys, step, hide=True)
    layers = {"visible": masks.visible, "hidden": masks.hidden}
    if footprint is not None:
        layers |= {"hidden": masks.hidden & ~footprint, "second_view": footprint}
    explanation = [f"{settings.model.name}: crops of {_by(settings.data.crop)} voxels, cells of {_by(cell)}."]
    explanation += plan.explain(step)
    if plan.schedule.guide != "none":
        explanation.append("The picture leaves the guide out: it needs the images.")
    document = {
        "config": config,
        "step": step,
        "grid": list(plan.grid),
        "cell": list(cell),
        "batch": batch,
        "ratio": plan.masking(step).ratio,
        "block": plan.block,
        "seed": plan.seed,
        "guide": plan.schedule.guide,
        "guide_strength": plan.schedule.strength_at(step),
        "cells": masks.valid.numel(),
        "visible": int(masks.visible.sum()),
        "hidden": int(masks.hidden.sum()),
        "second_view": None if footprint is None else int(footprint.sum()),
        "visible_share": masks.visible_share,
        "hidden_share": masks.hidden_share,
    }
    return [*explanation, ""], document, layers


def _footprint(settings: "PretrainSettings", cell: Triple, keys: Sequence[str], step: int) -> "Tensor | None":
    """Return the cells that second views cover, bool [B, D, H, W], where the whole crop is head."""
    if not settings.objective.second_view:
        return None
    from wavespark.sampling.views import footprints_in_head

    grid = settings.mask_plan(cell).grid
    return footprints_in_head(grid, settings.objective.second_view_cells, keys, settings.run.seed, step)


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
    kinds = [k for k in (RUN_KINDS if "config" in numbers else KINDS) if numbers[k] is not None]
    title = f"{numbers['batch']} x {grid} = {numbers['cells']} cells, {settings}"
    rows = [f"  {NAMES[k]:<26} {numbers[k]:>8}  {100 * numbers[k] / numbers['cells']:5.1f} %" for k in kinds]
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
    """Return the 2025-10 system's table, with a row for this grid if it is not in it."""
    from wavespark.masking import legacy_table

    known_rules = legacy_table()
    rows = []
    for r in [*known_rules, *([] if rule in known_rules else [rule])]:
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
    lines = ["The rule of the 2025-10 system: masked blocks = max(1, int(ratio * blocks))", ""]
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


def _picture(layers: Layers, width: int = 78, most_rows: int = 24) -> list[str]:
    """Draw slices of the first volume side by side, as many as fit."""
    marks = MARKS
    try:
        "".join(marks.values()).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        marks = ASCII_MARKS
    size = next(iter(layers.values())).shape[1:]
    depth, height, columns = size[0], min(size[1], most_rows), min(size[2], width)
    shown = _spread(depth, max(1, (width + 2) // (columns + 2)))
    rows = []
    for h in range(height):
        row = []
        for d in shown:
            kinds = [next(k for k, cells in layers.items() if cells[0, d, h, w]) for w in range(columns)]
            row.append("".join(marks[kind] for kind in kinds))
        rows.append("  ".join(row))
    titles = "  ".join(f"d {d}"[:columns].ljust(columns) for d in shown)
    legend = ", ".join(f"{marks[kind]} {NAMES[kind]}" for kind in layers)
    cut = "" if (height, columns) == tuple(size[1:]) else f", its first {height} x {columns} cells"
    return [f"slices of the first volume{cut}: {legend}", titles, *rows]


def _spread(total: int, most: int) -> list[int]:
    """At most so many indices, evenly spread from first to last."""
    if total <= most:
        return list(range(total))
    return [round(i * (total - 1) / max(most - 1, 1)) for i in range(most)]


def draw(layers: Layers, path: Path, most_volumes: int = 4, most_slices: int = 8) -> None:
    """Draw slices of the first volumes into a PNG.

    Raises:
        SettingsError: if the file cannot be written.
        DependencyError: if matplotlib is not installed.
    """
    import numpy as np

    try:
        from matplotlib.colors import ListedColormap
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise DependencyError("matplotlib", "report", "a picture") from None
    kind_BDHW = np.sum([number * cells.numpy() for number, cells in enumerate(layers.values())], axis=0)
    volumes, slices = min(len(kind_BDHW), most_volumes), _spread(kind_BDHW.shape[1], most_slices)
    colours = ListedColormap([COLOURS[kind] for kind in layers])
    figure = Figure(figsize=(1.4 * len(slices) + 0.6, 1.5 * volumes + 0.9), dpi=150, layout="constrained")
    axes = figure.subplots(volumes, len(slices), squeeze=False)
    for b, row in enumerate(axes):
        for d, axis in zip(slices, row, strict=True):
            axis.imshow(kind_BDHW[b, d], cmap=colours, vmin=0, vmax=len(layers) - 1, interpolation="none")
            axis.set(xticks=[], yticks=[])
            if b == 0:
                axis.set_title(f"d {d}", fontsize=8)
        row[0].set_ylabel(f"volume {b}", fontsize=8)
    patches = [Patch(facecolor=COLOURS[kind], edgecolor="0.5", label=NAMES[kind]) for kind in layers]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(slices), 3), fontsize=8, frameon=False)
    try:
        figure.savefig(path)
    except OSError as error:
        raise SettingsError(f"--output {path}: {error.strerror}. Choose a folder that exists and is writable") from None
