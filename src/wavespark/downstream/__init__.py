"""Downstream use of an encoder: probe, fine-tune beside controls, predict, evaluate."""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.downstream.classify import Classify
    from wavespark.downstream.detect import Detect
    from wavespark.downstream.fitting import Task, fit
    from wavespark.downstream.items import Labelled
    from wavespark.downstream.labels import LabelTable, read_labels
    from wavespark.downstream.probing import ProbePlan, ProbeReport, probe_column
    from wavespark.downstream.regress import Regress
    from wavespark.downstream.saving import TaskModel, load_model, save_model
    from wavespark.downstream.segment import Segment
    from wavespark.downstream.sliding import sliding_window
    from wavespark.downstream.study import Plan, run_study

__all__ = [
    "Classify",
    "Detect",
    "LabelTable",
    "Labelled",
    "Plan",
    "ProbePlan",
    "ProbeReport",
    "Regress",
    "Segment",
    "Task",
    "TaskModel",
    "fit",
    "load_model",
    "probe_column",
    "read_labels",
    "run_study",
    "save_model",
    "sliding_window",
]

__getattr__, __dir__ = lazy_exports(__name__)
