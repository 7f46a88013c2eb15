"""In CI a warning that our own call causes fails a test; one between libraries does not; elsewhere none does."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from warnings_policy import is_ours, our_folders

TESTS = Path(__file__).parent
OURS = our_folders(TESTS)
MODULE = "/lib/torch/nn/modules/module.py"

LIBRARY = """
import warnings

def old():
    warnings.warn("old() is going away", FutureWarning, stacklevel=2)

def calls_old():
    old()
"""
TEST = """
import functools
import gc
import warnings
import pytest
import library

def test_ours_calls_what_is_going_away():
    library.old()

def test_ours_calls_it_through_a_module_of_pytorch():
    torch = pytest.importorskip("torch")
    class Old(torch.nn.Module):
        def forward(self, x):
            warnings.warn("renamed", FutureWarning, stacklevel=2)  # attributed to PyTorch's module.py
            return x
    Old()(1)

def test_ours_lets_a_file_go(tmp_path):
    file = (tmp_path / "file").open("w")
    del file
    gc.collect()

@pytest.fixture
def prepared():
    library.old()

def test_ours_prepares_with_it(prepared):
    pass

def test_a_library_calls_it():
    library.calls_old()

def test_one_that_is_expected():
    with pytest.warns(FutureWarning, match="going away"):
        library.old()

def test_one_that_is_ignored():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.old()
"""
FAIL_IN_CI = {
    "test_ours_calls_what_is_going_away",
    "test_ours_lets_a_file_go",
    "test_ours_prepares_with_it",
} | ({"test_ours_calls_it_through_a_module_of_pytorch"} if find_spec("torch") else set())
PASS = {"test_a_library_calls_it", "test_one_that_is_expected", "test_one_that_is_ignored"}


def outcomes(folder: Path, test: str, *, ci: str) -> tuple[set[str], set[str], str]:
    """(passed, not passed, what was printed) by a pytest of its own over a test file and a library."""
    (folder / "tests").mkdir()
    (folder / "lib").mkdir()
    (folder / "pytest.ini").touch()
    (folder / "lib" / "library.py").write_text(LIBRARY)
    (folder / "tests" / "test_x.py").write_text(test)
    path = [str(folder / "lib"), str(TESTS / "support"), os.environ.get("PYTHONPATH", "")]
    call = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "warnings_policy", "-p", "no:cacheprovider", "tests"]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": os.pathsep.join(path)}
    environment.pop("PYTEST_ADDOPTS", None)
    said = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout
    verdicts = {name: verdict for verdict, name in re.findall(r"^(PASSED|FAILED|ERROR) \S+::(\w+)", said, re.MULTILINE)}
    passed = {name for name, verdict in verdicts.items() if verdict == "PASSED"}
    return passed, set(verdicts) - passed, said


def test_in_ci_the_warnings_of_our_calls_fail_and_no_others(tmp_path: Path) -> None:
    passed, failed, said = outcomes(tmp_path, TEST, ci="true")
    assert failed == FAIL_IN_CI, said
    assert passed == PASS, said
    assert "test_x.py:9: FutureWarning: old() is going away" in said


def test_elsewhere_no_warning_fails(tmp_path: Path) -> None:
    passed, failed, said = outcomes(tmp_path, TEST, ci="")
    assert passed == PASS | FAIL_IN_CI, said
    assert not failed, said


def test_in_ci_the_import_of_a_test_module_counts(tmp_path: Path) -> None:
    _, _, said = outcomes(tmp_path, "import library\nlibrary.old()\n\ndef test_a():\n    pass\n", ci="true")
    assert "test_x.py:2: FutureWarning: old() is going away" in said
    assert "1 error" in said


@pytest.mark.parametrize(
    ("filename", "callers", "verdict"),
    [
        (OURS[0] + "test_a.py", [], True),
        (OURS[1] + "pipeline.py", [], True),
        (OURS[2] + "app.py", [], True),
        (MODULE, [MODULE, OURS[1] + "scoring.py"], True),
        (MODULE, [MODULE, "/lib/transformers/models/llama/modeling_llama.py", OURS[1] + "scoring.py"], False),
        ("/lib/transformers/trainer.py", [OURS[1] + "training/sft.py"], False),
        ("/elsewhere/tests/test_a.py", [], False),
        (MODULE, [], False),
    ],
)
def test_a_warning_is_ours_where_the_nearest_caller_is(filename: str, callers: list[str], verdict: bool) -> None:
    assert is_ours(filename, callers, OURS) is verdict
