"""Proof that this machine works."""

from wavespark.doctor.checks import Check, examine
from wavespark.doctor.selftest import self_tests
from wavespark.doctor.sparse_suite import SparseCheck, sparse_suite

__all__ = ["Check", "SparseCheck", "examine", "self_tests", "sparse_suite"]
