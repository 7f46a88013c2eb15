"""sftscope beside other people's code: whatever modules lie in the working folder or on the PYTHONPATH.

A training by TRL with its sidecar among them is in `attach/test_trl.py`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from strangers import among, write_strangers

GOLDEN = Path(__file__).parent / "store" / "golden"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_strangers(tmp_path / "project")


def run_in(project: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **among(project))


@pytest.mark.parametrize(
    "code",
    [
        "from sftscope_tui.cli import main; import sys; sys.argv[1:] = ['--help']; main()",
        "import runpy, sys; sys.argv[1:] = ['--version']; runpy.run_module('sftscope', run_name='__main__')",
        "from sftscope import SftscopeCallback; print(SftscopeCallback.__name__)",
        # step files are read in a process of its own
        f"import sftscope; print(sftscope.open_run({str(GOLDEN / 'v1' / 'run')!r}).steps)",
    ],
)
def test_nothing_of_a_strangers_is_imported(project: Path, code: str) -> None:
    done = run_in(project, code)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_modules_of_the_working_folder_are_strangers(project: Path) -> None:
    """That the test above can fail."""
    assert "a stranger was imported" in run_in(project, "import engine").stderr
