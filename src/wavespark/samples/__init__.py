"""Heads to try things on: a real brain that an installed package ships, and synthetic head angiography."""

from wavespark.samples.brain import BrainMap, mni152_brain

__all__ = ["BrainMap", "mni152_brain"]
