"""Damage to stored files, as a disk or a bad copy does it."""

from pathlib import Path

from sftscope.store import RunFolder


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 4
    file.write_bytes(data)


def damage_scores(file: Path) -> None:
    """So that the dataset of the scores does not match its checksum."""
    scores = RunFolder(file.parents[1]).read_step(int(file.stem[5:])).scores.tobytes()
    flip(file, file.read_bytes().index(scores[:64]) + 9)
