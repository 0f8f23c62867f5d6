"""The published figures, rerun here: ratios between forms that are measured in turn, in one
process."""

from wavespark.bench.child import in_clean_process
from wavespark.bench.sparse import SparseBench, measure_sparse
from wavespark.bench.step import StepBench, measure_step

__all__ = ["SparseBench", "StepBench", "in_clean_process", "measure_sparse", "measure_step"]
