"""Time budget of the quickstart: how much each phase may take on this machine, from a few seconds
of measuring."""

from dataclasses import dataclass

PATIENT = 4.6
"""Cost of writing and preparing a synthetic patient, in units of the small head that measures the
machine."""
REPORT = 12.0
"""Cost of report, export and loading, in the same unit."""
SAMPLES_SHARE = 0.25
"""Largest share of the time for samples and preparation."""
FEWEST_PATIENTS, MOST_PATIENTS = 2, 6
MEASURES = 4
"""Held-out measures of a run: at its start, after each third and at its end."""
WHOLE_SLICES = 1.0
"""Cost of the whole slices at the end of a run, in held-out measures."""
FEWEST_STEPS = 20
IN_A_RUN = 1.1
"""A step within a run over a step alone: checkpoints, curves, a loader beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Seconds of the parts of a run on this machine."""

    head: float
    """A small synthetic head."""
    step: float
    """A training step, with its share of loading."""
    measure: float
    """A held-out measure."""

    @property
    def fixed(self) -> float:
        """Seconds that a run takes beside its steps, with report and export."""
        return (MEASURES + WHOLE_SLICES) * self.measure + REPORT * self.head


def patients_for(seconds: float, head_seconds: float) -> int:
    """Return how many synthetic patients fit into the share of the time that samples may take.

    >>> patients_for(300, 0.4), patients_for(60, 0.4), patients_for(60, 2.0)
    (6, 2, 2)
    """
    affordable = int(SAMPLES_SHARE * seconds / (PATIENT * max(head_seconds, 1e-6)))
    wanted = round(1.2 * seconds / 60)  # more of the time for training where there is little
    return max(FEWEST_PATIENTS, min(MOST_PATIENTS, affordable, wanted))


def steps_for(seconds: float, pace: Pace) -> int:
    """Return how many training steps fit into the seconds that are left for training, report and
    export."""
    return max(FEWEST_STEPS, int((seconds - pace.fixed) / (IN_A_RUN * pace.step)))
