"""Names of figures for people."""

from collections.abc import Mapping

_LABELS = {
    "dice": "Dice",
    "hd95_mm": "HD95 (mm)",
    "surface_dice": "surface Dice (1 mm)",
    "one_side_empty": "classes only in truth or only in prediction",
    "auc": "AUC",
    "accuracy": "balanced accuracy",
    "rsna": "RSNA weighted AUC",
    "sensitivity": "sensitivity at 0.5 false positives",
    "mae": "mean absolute error",
    "r2": "R2",
}


def figure_label(name: str, names: Mapping[str, str]) -> str:
    """Return a figure's name for people.

    Args:
        name: of a figure, as in `results.json`.
        names: names that the task gives, such as those of its classes.

    >>> figure_label("dice_2", {}), figure_label("dice_1", {"dice_1": "Dice CSF"}), figure_label("hd95_mm", {})
    ('Dice class 2', 'Dice CSF', 'HD95 (mm)')
    """
    if name in names:
        return names[name]
    if name.startswith("dice_"):
        return f"Dice class {name.removeprefix('dice_')}"
    return _LABELS.get(name, name)
