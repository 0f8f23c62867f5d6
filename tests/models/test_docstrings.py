"""The examples in the docstrings of encoders and sparse operations give what they say."""

import doctest
import importlib
import pkgutil

from wavespark import models, sparse


def test_the_examples_are_true():
    found = {
        module.name: doctest.testmod(importlib.import_module(module.name))
        for room in (models, sparse)
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")
    }
    assert [name for name, result in found.items() if result.failed] == []
    assert sum(result.attempted for result in found.values()) > 10
