"""From a reader of a run to its training: one request, only from the run's owner, and only while it listens."""

import json
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftscope.foundation.errors import SftscopeError
from sftscope.store import RunFolder
from sftscope.store.sharing.training_requests import (
    Answered,
    Request,
    answer,
    ask,
    listen,
    listening,
    outcome,
    read_answer,
    stop_listening,
    take,
)


@pytest.fixture
def folder(tmp_path):
    """A run whose training listens: this process."""
    listen(RunFolder(tmp_path))
    return RunFolder(tmp_path)


def test_a_request_arrives_once_with_its_evidence_made_safe(folder):
    ask(folder, Request.STOP, "enough \x1b[2J\n")
    asked = take(folder)
    assert asked.request is Request.STOP
    assert asked.reason == "enough ␛[2J␊"
    assert take(folder) is None
    answer(folder, Request.STOP, 12)
    assert read_answer(folder) == Answered(Request.STOP, 12)


def test_the_outcome_is_that_of_the_last_request(folder):
    """No earlier answer counts, a training that ended without one is said, and one that answered last still counts."""
    answer(folder, Request.SAVE, 3)
    ask(folder, Request.STOP)
    assert outcome(folder) == ""
    stop_listening(folder)
    assert outcome(folder).startswith("not done: no training listens")
    listen(folder)
    ask(folder, Request.SAVE)
    answer(folder, take(folder).request, 7)
    stop_listening(folder)
    assert outcome(folder) == "the training answers: saved at step 7"


def test_the_last_request_counts(folder):
    ask(folder, Request.STOP)
    ask(folder, Request.SAVE)
    assert take(folder).request is Request.SAVE
    assert take(folder) is None


def test_no_one_but_the_owner_can_read_or_write_a_request(folder):
    before = os.umask(0)
    try:
        ask(folder, Request.SAVE)
    finally:
        os.umask(before)
    assert (folder.path / "request.json").stat().st_mode & 0o777 == 0o600


def test_nothing_can_be_asked_where_no_training_listens(folder):
    stop_listening(folder)
    assert listening(folder) is None
    with pytest.raises(SftscopeError, match="no training listens to this run"):
        ask(folder, Request.STOP)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (folder.path / "listening.json").write_text(json.dumps({"host": socket.gethostname(), "pid": gone.pid}))
    with pytest.raises(SftscopeError, match="the training that wrote this run has ended"):
        ask(folder, Request.STOP)


def test_a_request_to_the_training_before_is_forgotten(folder):
    ask(folder, Request.STOP)
    listen(folder)  # the next training begins
    assert take(folder) is None


def test_another_users_run_cannot_be_asked_and_another_users_request_is_not_honoured(folder, monkeypatch):
    ask(folder, Request.STOP)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SftscopeError, match="only its owner can ask"):
        ask(folder, Request.STOP)
    with pytest.raises(SftscopeError, match="not from the owner of this training was not honoured"):
        take(folder)
    assert take(folder) is None  # taken away all the same


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_request_that_others_could_have_written_is_not_honoured(folder, mode):
    ask(folder, Request.STOP)
    (folder.path / "request.json").chmod(mode)
    with pytest.raises(SftscopeError, match="not from the owner"):
        take(folder)


@pytest.mark.parametrize("kind", ["link", "hard link", "folder", "pipe"])
def test_what_is_no_plain_file_of_its_own_is_not_honoured(folder, tmp_path, kind):
    path, elsewhere = folder.path / "request.json", tmp_path / "elsewhere.json"
    elsewhere.write_text('{"request": "stop"}')
    elsewhere.chmod(0o600)
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "hard link":
        path.hardlink_to(elsewhere)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path, 0o600)
    with pytest.raises(SftscopeError):
        take(folder)
    assert elsewhere.exists()


@given(content=st.one_of(st.binary(max_size=60), st.just(b"[" * 5000), st.just(b'{"request": "format the disk"}')))
def test_whatever_a_request_holds_only_stop_and_save_are_ever_honoured(tmp_path_factory, content):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    path = folder.path / "request.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SftscopeError, match="expected stop or save"):
        take(folder)
    assert not path.exists()
