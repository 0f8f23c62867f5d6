"""What the laws share."""

import pytest


@pytest.fixture
def plant(monkeypatch):
    """Replaces `owner.name` by `fault(the original)`."""

    def planted(owner, name, fault):
        monkeypatch.setattr(owner, name, fault(getattr(owner, name)))

    return planted
