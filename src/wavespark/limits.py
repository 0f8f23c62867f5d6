"""Limits that decide whether a run learns and stays healthy; training stops by them and the report
judges by them.

They are the numbers of law I13 (docs/design/SPEC.md, section 4).
"""

LEARNED = 0.9
"""A held-out normalised loss below this counts as learned; 1 is predicting the mean."""
NOTHING_LEARNED = 0.99
"""A held-out normalised loss above this counts as nothing learned."""
RANK_LEFT = 0.25
"""Features whose effective rank is below this share of the fresh model's have collapsed."""
SPREAD_LEFT = 0.1
"""Features whose standard deviation is below this share of the fresh model's have collapsed."""
