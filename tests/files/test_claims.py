"""Claims: one process at a time, over when it ends or is silent, by the clock of the file system, never in the way."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sftscope.files import claims
from sftscope.files.atomic import process_name
from sftscope.files.claims import claimed, claimed_in_turn, sweep_claims
from sftscope.store import RunFolder

HOLDER = """
import sys, time
from pathlib import Path
from sftscope.files.claims import claimed
with claimed(Path(sys.argv[1]), "step-8") as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that has the claim."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    return process


def test_one_process_has_a_claim_and_gives_it_back(tmp_path: Path) -> None:
    with claimed(tmp_path, "a") as first, claimed(tmp_path, "a") as second, claimed(tmp_path, "b") as other:
        assert (first, second, other) == (True, False, True)
    with claimed(tmp_path, "a") as again:
        assert again
    assert not list(tmp_path.iterdir())


def test_a_claim_of_a_process_that_was_killed_is_over_at_once(tmp_path: Path) -> None:
    process = holder(tmp_path)
    with claimed(tmp_path, "step-8") as mine:
        assert not mine
    process.kill()
    process.wait()
    process.stdout.close()
    with claimed(tmp_path, "step-8") as mine:
        assert mine
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stamped", [-(10**9), -86_400.0, 0.0, 86_400.0, 10**9])
def test_another_hosts_claim_is_over_when_it_was_seen_unchanged_for_long(tmp_path, monkeypatch, stamped) -> None:
    """However wrong the clocks are that stamp files and that tell the time: only a change counts, and its absence."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: -stamped)
    file = tmp_path / ".sftscope-claim-a"
    file.write_text("0badhost-12-abcd")
    begun = file.stat().st_mtime + stamped

    def is_free() -> bool:
        with claimed(tmp_path, "a") as mine:
            return mine

    os.utime(file, (begun, begun))
    assert not is_free()
    now[0] += claims.EXPIRES - 1
    os.utime(file, (begun + 1, begun + 1))  # a sign of life
    assert not is_free()
    now[0] += claims.EXPIRES - 1
    assert not is_free()
    now[0] += 2
    assert is_free()
    assert not list(tmp_path.iterdir())


def test_a_claim_that_was_renewed_while_it_was_put_away_is_put_back(tmp_path: Path) -> None:
    file = tmp_path / ".sftscope-claim-a"
    file.write_text("0badhost-12-abcd")
    before = claims._stamp(file)
    assert before is not None
    os.utime(file, (5, 5))
    claims._put_away(file, before)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def test_what_was_seen_of_claims_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_MOST_SEEN", 8)
    for number in range(50):
        (tmp_path / f".sftscope-claim-{number}").write_text("0badhost-12-abcd")
        with claimed(tmp_path, str(number)) as mine:
            assert not mine
    assert len(claims._seen) <= 8


def test_sweeping_removes_the_claims_of_yesterday_only(tmp_path: Path) -> None:
    file = tmp_path / ".sftscope-claim-a"
    file.write_text("0badhost-12-abcd")
    assert sweep_claims(tmp_path) == 0
    os.utime(file, (0, 0))
    assert sweep_claims(tmp_path) == 1


def test_sweeping_removes_what_a_kill_left_between_two_operations(tmp_path: Path) -> None:
    """A claim that was made and not signed; one of a living process that a dead one was putting away."""
    unsigned = tmp_path / ".sftscope-claim-a"
    unsigned.touch()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = process_name().partition("-")[0]
    aside = tmp_path / f".sftscope-claim-step-3-{host}-{dead.pid}-0123abcd-over"
    aside.write_text(f"{process_name()}-abcd")
    living = tmp_path / f".sftscope-claim-step-4-{process_name()}-0123abcd-over"
    living.write_text(f"{process_name()}-abcd")
    assert sweep_claims(tmp_path) == 1
    assert sorted(tmp_path.iterdir()) == [unsigned, living]
    minutes_ago = time.time() - claims.EXPIRES - 1
    os.utime(unsigned, (minutes_ago, minutes_ago))
    os.utime(living, (minutes_ago, minutes_ago))
    assert sweep_claims(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [living]


@pytest.mark.parametrize("put_back", [False, True])
def test_a_claim_is_put_away_under_a_name_that_tells_who_did(tmp_path, monkeypatch, put_back) -> None:
    claim, names = tmp_path / ".sftscope-claim-step-3", []
    claim.write_text("0badhost-12-abcd")
    stamp, rename = claims._stamp(claim), Path.rename
    monkeypatch.setattr(Path, "rename", lambda self, other: names.append(other) or rename(self, other))
    claims._put_away(claim, (0, 0) if put_back else stamp)
    assert claims._putter(names[0]) == process_name()
    assert claims._putter(claim) == ""
    assert list(tmp_path.iterdir()) == [claim] * put_back


def test_a_claim_is_kept_fresh_while_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_REFRESH", 0.01)
    with claimed(tmp_path, "a"):
        (file,) = tmp_path.iterdir()
        os.utime(file, (0, 0))
        until = time.monotonic() + 10
        while file.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert file.stat().st_mtime > 0


def test_a_claim_that_was_taken_over_is_left_to_its_new_owner(tmp_path: Path) -> None:
    """A process that was stopped for long finds its claim in other hands: it removes and refreshes nothing."""
    with claimed(tmp_path, "a"):
        (file,) = tmp_path.iterdir()
        file.write_text("0badhost-12-abcd")
    assert file.read_text() == "0badhost-12-abcd"


@pytest.mark.campaign
def test_many_processes_in_turn_are_never_two_at_once(tmp_path: Path) -> None:
    """Six processes, one of them killed while it has the claim: each other one has its turn alone."""
    code = """
import sys, time
from pathlib import Path
from sftscope.files import claims
claims._POLL = 0.005
folder = Path(sys.argv[1])
for _ in range(5):
    with claims.claimed_in_turn(folder, "a"):
        inside = folder / "inside"
        inside.touch(exist_ok=False)
        time.sleep(0.002)
        inside.unlink()
"""
    killed = holder_in_turn(tmp_path)
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(5)]
    killed.kill()
    killed.wait()
    killed.stdout.close()
    assert [process.wait(120) for process in processes] == [0] * 5
    assert not list(tmp_path.iterdir())


def holder_in_turn(folder: Path) -> subprocess.Popen[str]:
    code = HOLDER.replace('"step-8"', '"a"')
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    return process


def test_waiting_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_POLL", 0.001)
    file = tmp_path / ".sftscope-claim-a"
    file.write_text("0badhost-12-abcd")
    said: list[int] = []

    def told() -> None:
        said.append(1)
        file.unlink()

    with claimed_in_turn(tmp_path, "a", told):
        pass
    assert said == [1]


def test_where_no_claim_can_be_written_work_goes_on(tmp_path: Path) -> None:
    """A claim only saves work; a folder that takes none says so when the result is written."""
    (tmp_path / "file").touch()
    with claimed(tmp_path / "file" / "folder", "a") as mine:
        assert mine


def test_a_run_sweeps_claims_of_the_dead_and_keeps_those_of_the_living(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.steps_folder.mkdir()
    process = holder(folder.steps_folder)
    assert folder.sweep() == 0
    process.kill()
    process.wait()
    process.stdout.close()
    assert folder.sweep() == 1
