"""The result of a comparison in sentences: every arm with its interval, and what pre-training
gained over the others."""

from collections.abc import Mapping
from typing import Any


def verdict(results: Mapping[str, Any]) -> str:
    """One sentence for each number of labels, naming every arm that was trained.

    Args:
        results: from `run_study`.
    """
    if not results["gains"] and not results.get("plain_gains"):
        return "No control was trained, so nothing is said about what pre-training gained."
    return " ".join(_sentence(results, labels) for labels in dict.fromkeys(row["labels"] for row in results["table"]))


def _sentence(results: Mapping[str, Any], labels: int) -> str:
    main = results["main"]
    arms = [row for row in results["table"] if row["labels"] == labels]
    values = ", ".join(f"{row['arm']} {_figure(row['figures'].get(main))}" for row in arms)
    differences = [
        _difference(rows, labels, main, other, bool(results.get("lower_is_better")))
        for other, rows in (("scratch", results["gains"]), ("plain", results.get("plain_gains", ())))
        if rows
    ]
    return f"{labels} label(s), {main}: {values}; {'; '.join(differences)}."


def _difference(rows: Any, labels: int, main: str, other: str, lower_is_better: bool) -> str:
    figure = next((row["figures"].get(main) for row in rows if row["labels"] == labels), None)
    if figure is None or figure["value"] is None:
        return f"minus {other} not computable"
    if figure["low"] is None:
        return f"minus {other} {figure['value']:+.3f} (no interval, too few test patients)"
    if figure["low"] == figure["high"] != 0:
        return f"minus {other} {figure['value']:+.3f} (no spread among the test patients, so nothing is shown)"
    low, high = (-figure["high"], -figure["low"]) if lower_is_better else (figure["low"], figure["high"])
    judgement = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    return f"minus {other} {figure['value']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}], {judgement}"


def _figure(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "not computable"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
