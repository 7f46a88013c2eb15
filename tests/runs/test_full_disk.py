"""A disk that is really full, has no room for one more file, or is read-only: one line, and what was there stands."""

import shutil
import subprocess
from pathlib import Path

import pytest

from command_line import command
from sample_history import write_sample_run
from sftscope.analysis.run.read_run import load_history
from sftscope.runs import pipeline
from sftscope.store import RunFolder

MOUNT = shutil.which("mount") or "mount"
UMOUNT = shutil.which("umount") or "umount"


@pytest.fixture
def disk(tmp_path):
    """An empty disk of 8 MB, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    call = [MOUNT, "-t", "tmpfs", "-o", "size=8m,nr_inodes=400", "tmpfs", str(place)]
    made = subprocess.run(call, capture_output=True, text=True, check=False)
    if made.returncode:
        # only root may mount, and not in every container; the same errors are injected in test_faults.py
        pytest.skip(f"no disk can be mounted: {made.stderr.strip()}")
    yield place
    subprocess.run([UMOUNT, "--lazy", str(place)], check=True)


@pytest.fixture
def run(trained, disk):
    """A run that is trained, on that disk, with its first step extracted."""
    shutil.copytree(trained[0].parent, disk / "job")
    pipeline.extract(disk / "job" / "run", steps=[0])
    return RunFolder(disk / "job" / "run")


def fill(disk: Path, left: int) -> Path:
    """Write until `left` bytes are free."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - left))
    return filler


def use_up_names(disk: Path) -> list[Path]:
    """Make empty files until there is no room for another."""
    made = []
    while True:
        try:
            (disk / f"name-{len(made)}").touch()
        except OSError:
            return made
        made.append(disk / f"name-{len(made)}")


def ran(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def assert_refused_in_one_line(reason: str, *arguments: object) -> None:
    done = ran(*arguments)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("sftscope: ")
    assert reason in last
    assert "Traceback" not in done.stderr


def assert_goes_on(run: RunFolder, trained) -> None:
    """The same command again: all steps, nothing left behind, readable by all."""
    pipeline.extract(run.path)
    assert run.steps() == (0, 1, 2, 4, 6)
    assert not list(run.path.rglob(".sftscope*"))
    assert load_history(run.path).steps.size == 5


@pytest.mark.campaign
@pytest.mark.parametrize("left", [0, 12_288])
def test_a_full_disk_ends_extraction_with_a_line_and_it_goes_on_later(run, trained, disk, left):
    before = run.step_file(0).read_bytes()
    filler = fill(disk, left)
    assert_refused_in_one_line("No space left on device", "extract", run.path)
    assert run.step_file(0).read_bytes() == before
    assert load_history(run.path).steps[0] == 0
    filler.unlink()
    assert_goes_on(run, trained)


@pytest.mark.campaign
def test_no_room_for_the_temporary_file(run, trained, disk):
    made = use_up_names(disk)
    assert_refused_in_one_line("No space left on device", "extract", run.path)
    assert run.steps() == (0,)
    for file in made:
        file.unlink()
    assert_goes_on(run, trained)


@pytest.mark.campaign
def test_a_run_that_cannot_be_written_is_read_and_not_extracted(run, trained, disk):
    subprocess.run([MOUNT, "-o", "remount,ro", str(disk)], check=True)
    assert_refused_in_one_line("Read-only file system", "extract", run.path)
    assert ran("show", run.path).returncode == 0
    assert ran("verify", run.path).returncode == 0
    subprocess.run([MOUNT, "-o", "remount,rw", str(disk)], check=True)
    assert_goes_on(run, trained)


@pytest.mark.campaign
def test_training_on_a_full_disk_ends_with_a_line_and_goes_on_later(trained, disk):
    config = disk / "job" / trained[0].name
    shutil.copytree(trained[0].parent, config.parent, ignore=shutil.ignore_patterns("run", "copy"))
    filler = fill(disk, 65_536)
    assert_refused_in_one_line("No space left on device", "train", config, "--out", disk / "job" / "run")
    filler.unlink()
    pipeline.train(config, disk / "job" / "run")
    assert_goes_on(RunFolder(disk / "job" / "run"), trained)


def test_a_report_on_a_full_disk_is_a_line_and_no_half_of_one(disk, tmp_path):
    run = write_sample_run(tmp_path / "run", n_steps=4)
    fill(disk, 4096)
    assert_refused_in_one_line("No space left on device", "report", run, "--out", disk / "report")
    assert not [file for file in (disk / "report").rglob("*") if file.is_file() and not file.stat().st_size]
