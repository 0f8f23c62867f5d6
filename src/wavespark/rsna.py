"""RSNA 2025 intracranial aneurysm detection: one series folder in, 14 probabilities out.

Example:
    >>> from wavespark.rsna import LABELS, Predictor
    >>> LABELS[-1]
    'Aneurysm Present'
"""

from wavespark.downstream.rsna import LABELS, Prediction, Predictor

__all__ = ["LABELS", "Prediction", "Predictor"]
