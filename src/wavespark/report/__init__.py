"""A run as one self-contained page for people, made only from the files of its folder."""

from wavespark.report.figures import reconstruction_figure
from wavespark.report.page import render, write_report
from wavespark.report.record import RunRecord, read_run
from wavespark.report.verdict import Verdict, headline, judge

__all__ = ["RunRecord", "Verdict", "headline", "judge", "read_run", "reconstruction_figure", "render", "write_report"]
