"""Fixtures: a small labelled store."""

from downstream.labelled import small  # noqa: F401
