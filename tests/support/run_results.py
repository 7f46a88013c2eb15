"""Whether two runs have the same results, byte for byte."""

from sftscope.store import RunFolder


def assert_same_results(folder: RunFolder, whole: RunFolder) -> None:
    assert folder.steps() == whole.steps()
    for step in whole.steps():
        assert folder.step_file(step).read_bytes() == whole.step_file(step).read_bytes()
    assert not [file.name for file in folder.path.rglob(".sftscope*")]
    assert not list(folder.steps_folder.glob("*.scores.h5"))
