"""Weights are compared by their tensors, however they are split into files."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from sftscope.files.same_tensors import same_tensors


def saved(path: Path, **tensors: object) -> Path:
    save_file({name: np.asarray(value, np.float32) for name, value in tensors.items()}, path)
    return path


def test_the_same_tensors_in_other_files_are_the_same(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole", a=[1, 2], b=[[3.0]])
    parts = [saved(tmp_path / "b", b=[[3.0]]), saved(tmp_path / "a", a=[1, 2])]
    assert same_tensors([whole], parts)
    assert not same_tensors([whole], parts[:1])
    assert not same_tensors([], [])


def test_another_bit_shape_or_name_is_another_model(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", a=[1, 2], b=[3])
    for number, other in enumerate(
        ({"a": [1, 2], "b": [3.0000002]}, {"a": [[1, 2]], "b": [3]}, {"a": [1, 2], "c": [3]})
    ):
        assert not same_tensors([one], [saved(tmp_path / str(number), **other)])
