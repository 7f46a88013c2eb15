"""Whether two sets of safetensors files hold the same tensors, bit for bit, however they are split and ordered."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sftscope.files.opening import opened
from sftscope.files.safetensors_header import TensorEntry, read_header

_CHUNK = 2**22
_Place = tuple[Path, int, TensorEntry]  # the file, where its tensors begin in it, and the tensor among them


def same_tensors(one: Sequence[Path], other: Sequence[Path]) -> bool:
    """Whether both have tensors of the same names, dtypes, shapes and bytes, and any at all.

    Reads up to the first difference. SftscopeError and OSError as `read_header`.
    """
    left, right = _places(one), _places(other)
    if not left or left.keys() != right.keys():
        return False
    if any(_kind(left[name]) != _kind(right[name]) for name in left):
        return False
    return all(_same_bytes(left[name], right[name]) for name in left)


def _places(files: Sequence[Path]) -> Mapping[str, _Place]:
    found: dict[str, _Place] = {}
    for file in files:
        entries = read_header(file)
        begin = file.stat().st_size - max((entry.end for entry in entries.values()), default=0)
        found |= {name: (file, begin, entry) for name, entry in entries.items()}
    return found


def _kind(place: _Place) -> tuple[str, tuple[int, ...]]:
    return place[2].dtype, place[2].shape


def _same_bytes(one: _Place, other: _Place) -> bool:
    left = one[2].end - one[2].begin
    with opened(one[0]) as mine, opened(other[0]) as theirs:
        mine.seek(one[1] + one[2].begin)
        theirs.seek(other[1] + other[2].begin)
        while left > 0:
            part = mine.read(min(_CHUNK, left))
            if not part or part != theirs.read(len(part)):
                return False
            left -= len(part)
    return True
