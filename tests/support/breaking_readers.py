"""A reader process that breaks at files that begin with b"bad"."""

import subprocess

import pytest

from sftscope.foundation import sandbox


def breaking(monkeypatch: pytest.MonkeyPatch, body: str, *, at_start: str = "pass", children: int = 1000) -> None:
    """A child that does `body` when a file begins with b"bad", and reads all others; so the first `children`.

    at_start: what it does before it is ready.
    """
    start = sandbox.start_child
    started = []
    code = f"""
import sftscope.store.steps.step_reader as step_datasets
read = step_datasets.read_datasets
def read_or_break(data, *, source):
    if data.startswith(b"bad"):
        {body}
    return read(data, source=source)
step_datasets.read_datasets = read_or_break
{at_start}
"""

    popen = subprocess.Popen

    def changed(arguments, **options):
        served = "from sftscope.store.steps.sandboxed_reader import serve"
        head, tail = arguments[-1].split(served, 1)
        return popen([*arguments[:-1], f"{head}exec({code!r}); {served}{tail}"], **options)

    def with_change(module, work):
        started.append(1)
        if len(started) > children:
            return start(module, work)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sandbox.subprocess, "Popen", changed)
            return start(module, work)

    monkeypatch.setattr(sandbox, "start_child", with_change)
