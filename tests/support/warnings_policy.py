"""Which warnings fail a test: in CI those that our own calls cause, elsewhere none.

A release of somebody else must not turn a user's tests red, and a call of ours that a library is about to refuse must
not pass CI.

The rule: a warning is attributed to a line, by the `stacklevel` of who warns: the caller, who can change something.
It is ours if that line lies in our packages or tests. If the line only passes calls on (PyTorch's `Module.__call__`, a
decorator of transformers), the caller is the next frame above that does not; it is ours if that one is. Everything
else is between libraries, and stays a line of pytest's summary.
"""

import os
import sys
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

_THIS = "tests/support/warnings_policy.py"
# Ends of the files whose lines call what their own caller asked for. transformers' decorator of renamed arguments
# warns of its caller's caller, which is such a file when a model is called.
PASSES_ON = (
    "/torch/nn/modules/module.py",
    "/torch/utils/_contextlib.py",
    "/transformers/utils/deprecation.py",
    "/transformers/utils/generic.py",
    "/transformers/utils/output_capturing.py",
    "/transformers/utils/import_utils.py",
    "/functools.py",
    "/contextlib.py",
)


def our_folders(tests: Path) -> tuple[str, ...]:
    """Where our lines lie: the tests and the two packages, wherever these are installed."""
    found = [str(tests)]
    for name in ("sftscope", "sftscope_tui"):
        spec = find_spec(name)
        found += list(spec.submodule_search_locations or ()) if spec else []
    return tuple(folder + os.sep for folder in found)


def is_ours(filename: str, callers: Iterable[str], ours: tuple[str, ...]) -> bool:
    """Whether a warning that is attributed to `filename` was caused by us.

    callers: the files of the frames above the attributed one, the nearest first.
    """
    for file in (filename, *callers):
        if not file.endswith(PASSES_ON):
            return file.startswith(ours)
    return False


def files_above(frame: FrameType | None, filename: str) -> Iterator[str]:
    """The files of the frames above the first one of `filename`."""
    while frame is not None and frame.f_code.co_filename != filename:
        frame = frame.f_back
    while frame is not None:
        frame = frame.f_back
        if frame is not None:
            yield frame.f_code.co_filename


class WarningsPolicy:
    """A pytest plugin: a test, or the import of its module, fails with the first warning that was caused by us."""

    def __init__(self, tests: Path) -> None:
        self._ours = our_folders(tests)

    @contextmanager
    def _watched(self) -> Iterator[list[str]]:
        """The warnings of ours so far; pytest records all of them as before."""
        found: list[str] = []
        before = warnings.showwarning

        def show(message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
            if is_ours(filename, files_above(sys._getframe(), filename), self._ours):
                found.append(f"{filename}:{lineno}: {category.__name__}: {message}")
            before(message, category, filename, lineno, *rest)

        warnings.showwarning = show
        try:
            yield found
        finally:
            warnings.showwarning = before

    def _phase(self) -> Generator[None, object, object]:
        with self._watched() as found:
            result = yield
        if found:
            pytest.fail(f"a warning that our own call causes ({_THIS}): {found[0]}", pytrace=False)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        return (yield from self._phase())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        return (yield from self._phase())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        return (yield from self._phase())

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        with self._watched() as found:
            report = yield
        if found and report.passed:
            report.outcome = "failed"
            report.longrepr = f"a warning that our own import causes ({_THIS}): {found[0]}"
        return report


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI"):
        config.addinivalue_line("filterwarnings", "always")  # each time, and the kinds that Python hides
        # exceptions that nobody could catch: in a thread, or as an object of a test went away
        config.addinivalue_line("filterwarnings", "error::pytest.PytestUnhandledThreadExceptionWarning")
        config.addinivalue_line("filterwarnings", "error::pytest.PytestUnraisableExceptionWarning")
        config.pluginmanager.register(WarningsPolicy(config.rootpath / "tests"), "warnings policy")
