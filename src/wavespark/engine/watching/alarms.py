"""Alarms of a run: collapsed features, nothing learned, masks that are not what was asked for.

Each warns or stops (exit code 4).

Gradients that are not finite are counted by the loop, which makes no update with them.
"""

from collections.abc import Mapping
from typing import Any, Literal

from wavespark.config.objective import HealthSettings
from wavespark.errors import ExitCode, TrainingStopped
from wavespark.limits import NOTHING_LEARNED, RANK_LEFT, SPREAD_LEFT
from wavespark.progress import Log

IN_A_ROW = 2
"""Measures in a row that must show a collapse before it counts."""
Action = Literal["stop", "warn", "off"]


class Alarms:
    """Looks at every line of validation.jsonl, and at the masks of every step.

    Args:
        settings: what happens when.
        warmup: steps of the learning rate's warm-up.
        log: called with warnings, each kind once.
        checkpoints: folder of the checkpoints, for the messages.
    """

    def __init__(self, settings: HealthSettings, warmup: int, log: Log, checkpoints: str) -> None:
        self.settings, self.warmup, self.log, self.checkpoints = settings, warmup, log, checkpoints
        self.start: dict[str, float] = {}
        """Effective rank and spread of the fresh model."""
        self.sound_at = 0
        """Step of the last measure without a sign of collapse."""
        self.collapsed_in_a_row = 0
        self.warned: list[str] = []

    def measured(self, line: Mapping[str, Any]) -> None:
        """Checks a held-out measure.

        Raises:
            TrainingStopped: where the settings say stop; exit code 4.
        """
        now = {name: float(line[name]) for name in ("effective_rank", "feature_std")}
        if not self.start:
            self.start = now
        signs = self._signs_of_collapse(now)
        self.collapsed_in_a_row = self.collapsed_in_a_row + 1 if signs else 0
        step = int(line["step"])
        if not signs:
            self.sound_at = step
        if self.collapsed_in_a_row >= IN_A_ROW:
            self._act(
                "collapse",
                self.settings.collapse,
                f"step {step}: the features collapse: {' and '.join(signs)}. The last sound measure was at step {self.sound_at}; checkpoints are kept "
                f"in {self.checkpoints}. Try a smaller optimizer.learning_rate, or health.collapse=warn to go on",
            )
        loss = line["normalised_loss"]
        if loss is not None and loss > NOTHING_LEARNED and step >= self.warmup + self.settings.patience and step:
            self._act(
                "not_learning",
                self.settings.not_learning,
                f"step {step}: the held-out normalised loss is {loss:.3f}, where 1 is predicting the mean: nothing is learned yet. "
                "Try another optimizer.learning_rate, or a larger data.crop so that a mask leaves more to see",
            )

    def masks(self, step: int, hidden_share: float, cells: int, ratio: float) -> None:
        """Checks the telemetry of a step: the share of hidden cells is the ratio to half a cell in
        each crop.

        Args:
            step: of the run.
            hidden_share: of the valid cells.
            cells: valid cells of a crop.
            ratio: that was asked for.

        Raises:
            TrainingStopped: if it is not; exit code 4.
        """
        wrong = abs(hidden_share - min(max(ratio, 1 / cells), 1 - 1 / cells)) * cells
        if wrong > 0.5 + 1e-6:
            raise TrainingStopped(
                f"step {step}: masks hide {hidden_share * cells:.2f} of {cells} cells, not {ratio * cells:.2f}: a fault of the masking, please report it. "
                f"Checkpoints are kept in {self.checkpoints}",
                ExitCode.DIVERGED,
            )

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as JSON."""
        return {
            "start": dict(self.start),
            "sound_at": self.sound_at,
            "collapsed_in_a_row": self.collapsed_in_a_row,
            "said": list(self.warned),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` gave."""
        self.start = {k: float(v) for k, v in state["start"].items()}
        self.sound_at, self.collapsed_in_a_row = int(state["sound_at"]), int(state["collapsed_in_a_row"])
        self.warned = [str(kind) for kind in state["said"]]

    def _signs_of_collapse(self, now: Mapping[str, float]) -> list[str]:
        signs = []
        rank, first = now["effective_rank"], self.start["effective_rank"]
        if rank < RANK_LEFT * first:
            signs.append(f"effective rank {rank:.1f} after {first:.1f} at the start")
        spread, first = now["feature_std"], self.start["feature_std"]
        if spread < SPREAD_LEFT * first:
            signs.append(f"feature std {spread:.2g} after {first:.2g} at the start")
        return signs

    def _act(self, kind: str, action: Action, sentence: str) -> None:
        if action == "stop":
            raise TrainingStopped(sentence, ExitCode.DIVERGED)
        if action == "warn" and kind not in self.warned:
            self.warned.append(kind)
            self.log(sentence)
