"""Fixtures: small prepared stores."""

from engine.small import mixed_store, mr_store  # noqa: F401
