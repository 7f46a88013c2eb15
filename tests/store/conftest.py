"""A reader of step files that a test may break."""

import pytest

from sftscope.foundation.sandbox import Child
from sftscope.store.steps import sandboxed_reader


@pytest.fixture
def fresh_reader(monkeypatch: pytest.MonkeyPatch):
    """A reader of this test's own, so that what is done to it ends with the test."""
    reader = Child("sftscope.store.steps.sandboxed_reader", "step files are read")
    monkeypatch.setattr(sandboxed_reader, "_READER", reader)
    yield reader
    reader.stop()
