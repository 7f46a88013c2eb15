"""Files of every format version stay readable: those in `golden/` were written once and are never written again.

A new version of the format gets a folder of its own beside `v1`; what is newer than the reader is refused by name.
"""

import hashlib
import io
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from sftscope.analysis.run.read_run import load_history
from sftscope.extraction.finished import is_done
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import logical_model
from sftscope.store import NewerFormatError, RunFolder, StepFileError, read_step_file
from sftscope.store.steps.step_file import USER_BLOCK
from sftscope.store.steps.step_record import columns_of
from sftscope.verification.verify import verify

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = {
    (version.name, name): content
    for version in sorted(GOLDEN.iterdir())
    for name, content in json.loads((version / "expected.json").read_text()).items()
}


@pytest.mark.parametrize("place", EXPECTED, ids="/".join)
def test_a_step_file_of_every_version_reads_as_it_was_written(place: tuple[str, str]) -> None:
    """Every column by its hash, and by h5py without our reader."""
    expected, file = EXPECTED[place], GOLDEN.joinpath(*place)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == expected["file"], "golden files are not written again"
    record = read_step_file(file)
    columns = {name: column for name, column in columns_of(record).items() if name != "offsets"}
    assert {name: hashlib.sha256(each.tobytes()).hexdigest() for name, each in columns.items()} == expected["columns"]
    with h5py.File(io.BytesIO(file.read_bytes()), "r") as plain:
        assert set(plain) == {"meta", "offsets", *columns}
        for name, column in columns.items():
            assert np.array_equal(plain[name][...], column, equal_nan=True)
    assert record.step == expected["step"]
    assert {name: None if np.isnan(loss) else loss for name, loss in record.losses.items()} == expected["losses"]
    assert record.provenance.get("identity") == expected["identity"]


def test_a_run_of_the_first_version_is_whole_and_read() -> None:
    found, history = verify(GOLDEN / "v1" / "run"), load_history(GOLDEN / "v1" / "run")
    assert not found.damaged
    assert history.steps.tolist() == [0, 2, 6]
    assert [probe.probe.id for probe in history.probes] == ["p00", "p01", "p02"]
    assert not history.left_out
    assert [placebo.step for placebo in history.placebos] == [6]
    for probe in history.probes:
        model = logical_model(probe.bias, probe.effects[:, 0], probe.effects[:, 1])
        assert (np.abs(model - probe.scores).max(axis=1) <= probe.zeta * (1 + 1e-9)).all()


def test_a_newer_step_file_is_refused_with_its_version_and_the_others_are_read(tmp_path: Path) -> None:
    """Whatever follows the first line: a newer format may have other blocks, hashes and datasets."""
    shutil.copytree(GOLDEN / "v1" / "run", tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    body = folder.step_file(2).read_bytes()[USER_BLOCK:]
    folder.step_file(2).write_bytes(b"sftscope-step 12\nblake3 00\n".ljust(2 * USER_BLOCK, b"\n") + body)
    with pytest.raises(StepFileError, match="version 12 is newer than the 2 that this sftscope reads; update sftscope"):
        folder.read_step(2)
    history = load_history(folder.path)
    assert history.steps.tolist() == [0, 6]
    assert "version 12 is newer" in history.left_out[0]
    before = folder.step_file(2).read_bytes()
    with pytest.raises(NewerFormatError, match="update sftscope"):  # extraction does not take it for damage
        is_done(folder, 2, folder.read_run()["identity"])
    assert folder.step_file(2).read_bytes() == before


@pytest.mark.parametrize(("format_", "says"), [("2", "run format 2"), ('"x"', "run format x"), ("true", "run format")])
def test_a_newer_run_is_refused_with_the_release_that_made_it(tmp_path: Path, format_: str, says: str) -> None:
    text = (GOLDEN / "v1" / "run" / "run.toml").read_text()
    (tmp_path / "run.toml").write_text(
        text.replace("format = 1", f"format = {format_}", 1).replace('sftscope = "0.1.0"', 'sftscope = "3.0\\u001b"')
    )
    with pytest.raises(SftscopeError, match=f"{says}.*, made by sftscope 3.0␛ is newer than the 1 .*; update sftscope"):
        RunFolder(tmp_path).read_run()


def test_golden_files_are_small() -> None:
    assert sum(file.stat().st_size for file in GOLDEN.rglob("*") if file.is_file()) < 200_000
