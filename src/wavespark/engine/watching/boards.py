"""Dashboards beside the files of a run: TensorBoard, and on request Weights & Biases and MLflow.

None is imported unless it is asked for.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open

from wavespark.config.pretrain import RunSettings
from wavespark.errors import DependencyError


class Board(Protocol):
    """Shows numbers, and pictures if it can."""

    def scalars(self, numbers: Mapping[str, float], step: int) -> None: ...
    def examples(self, file: Path, step: int) -> None: ...
    def close(self) -> None: ...


def open_boards(run: Path, step: int, settings: RunSettings) -> list[Board]:
    """The boards that the settings name.

    TensorBoard is left out silently where it is not installed, the others are not.

    Raises:
        DependencyError: if one is asked for and not installed.
    """
    boards: list[Board] = []
    if settings.tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            pass
        else:
            boards.append(_TensorBoard(SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)))
    if settings.wandb:
        boards.append(_WeightsAndBiases(run, step))
    if settings.mlflow:
        boards.append(_MLflow(run))
    return boards


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def scalars(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def examples(self, file: Path, step: int) -> None:
        if not file.exists():
            return
        with safe_open(file, "pt") as tensors:
            for k, case in enumerate(json.loads(tensors.metadata()["cases"])):
                picture = side_by_side(
                    tensors.get_tensor(f"original_{k}"),
                    tensors.get_tensor(f"visible_{k}"),
                    tensors.get_tensor(f"reconstruction_{k}"),
                )
                self._writer.add_image(
                    f"held_out/{k} {case['modality']} original, visible, reconstruction", picture, step
                )

    def close(self) -> None:
        self._writer.close()


def side_by_side(
    original_CDHW: torch.Tensor, visible_DHW: torch.Tensor, reconstruction_CDHW: torch.Tensor
) -> torch.Tensor:
    """[1, W, 3 D]: the axial middle slice of the first channel three times, from 0 to 1 in the
    range of the original; anterior is up."""
    middle = original_CDHW.shape[-1] // 2
    slices = [v[0, :, :, middle] for v in (original_CDHW, original_CDHW * visible_DHW, reconstruction_CDHW)]
    low, high = slices[0].min(), slices[0].max()
    return ((torch.cat(slices, 0).T.flip(0) - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)[None]


class _WeightsAndBiases:
    """One run a folder: continued under the same id."""

    def __init__(self, run: Path, step: int) -> None:
        try:
            import wandb
        except ImportError:
            raise DependencyError("wandb", "wandb", "run.wandb=true") from None
        self._run: Any = wandb.init(project="wavespark", name=run.name, id=run.name, dir=str(run), resume="allow")

    def scalars(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def examples(self, file: Path, step: int) -> None:
        """Pictures of patients do not leave the machine."""

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, run: Path) -> None:
        try:
            import mlflow
        except ImportError:
            raise DependencyError("mlflow", "mlflow", "run.mlflow=true") from None
        self._client: Any = mlflow
        mlflow.set_experiment("wavespark")
        mlflow.start_run(run_name=run.name)

    def scalars(self, numbers: Mapping[str, float], step: int) -> None:
        self._client.log_metrics(dict(numbers), step=step)

    def examples(self, file: Path, step: int) -> None:
        """Pictures of patients do not leave the machine."""

    def close(self) -> None:
        self._client.end_run()
