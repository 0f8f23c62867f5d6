"""Proof that this machine works."""

from wavespark.doctor.checks import Check, examine
from wavespark.doctor.selftest import self_tests

__all__ = ["Check", "examine", "self_tests"]
