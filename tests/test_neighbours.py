"""sftscope beside other people's code: whatever modules lie in the working folder or on the PYTHONPATH."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foreign_training import write_inputs
from sftscope.analysis.reading import load_history

TESTS = Path(__file__).parent
# what training scripts, and the folders of this repository, are often called
NAMES = ("engine.py", "tui.py", "tests.py", "compat.py", "threads.py", "engine/__init__.py", "tui/__init__.py")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's folder, full of modules that must not be imported."""
    for name in NAMES:
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("raise RuntimeError('a stranger was imported: ' + __file__)\n")
    return tmp_path / "project"


def run_in(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([".", str(project), str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command, cwd=project, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "code",
    [
        "from sftscope_tui.cli import main; import sys; sys.argv[1:] = ['--help']; main()",
        "import runpy, sys; sys.argv[1:] = ['--version']; runpy.run_module('sftscope', run_name='__main__')",
        "from sftscope import SftscopeCallback; print(SftscopeCallback.__name__)",
        # step files are read in a process of its own
        f"import sftscope; print(sftscope.open_run({str(TESTS / 'golden' / 'v1' / 'run')!r}).steps)",
    ],
)
def test_nothing_of_a_strangers_is_imported(project: Path, code: str) -> None:
    done = run_in(project, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_training_by_trl_and_its_sidecar_run_beside_them(project: Path, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    script = [str(TESTS / "trl_training.py"), str(tmp_path), "lora-sidecar"]
    done = run_in(project, sys.executable, *script)
    assert done.returncode == 0, done.stderr[-2000:]
    assert load_history(tmp_path / "lora-sidecar" / "run").steps.tolist() == [0, 2, 4, 6]
    assert "a stranger" not in (tmp_path / "lora-sidecar" / "run" / "sidecar.log").read_text()


def test_the_modules_of_the_working_folder_are_strangers(project: Path) -> None:
    """That the test above can fail."""
    done = run_in(project, sys.executable, "-c", "import engine")
    assert "a stranger was imported" in done.stderr
