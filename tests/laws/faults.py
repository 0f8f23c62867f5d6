"""Faults planted in the code (the fixture `plant`), which a law must notice."""

from contextlib import contextmanager

import pytest


@contextmanager
def the_law_notices():
    with pytest.raises(AssertionError):
        yield
