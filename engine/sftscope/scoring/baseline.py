"""The baseline vector of a run, frozen: made once, kept as `baseline_vector.npy`, the same for every step.

Where step files are there already, the vector must be the one that they name by its hash.
"""

import hashlib
import io
from typing import Any

import numpy as np
import torch

from sftscope.compat.input_vectors import vector_width
from sftscope.files.hashes import read_numbers
from sftscope.files.opening import is_there
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.scoring.masking import baseline_vector
from sftscope.store import RunFolder, StepFileError, write_atomically


def fixed_baseline(folder: RunFolder, model: Any, kind: str, tokenizer: Any) -> torch.Tensor:
    """What masks a word in this run: (width,) as of `baseline_vector`, in the model's dtype and on its device.

    From the run folder where it is there, else made from `model`, which must be that of step 0, and
    stored. SftscopeError where the stored one is damaged or is not that of the steps done.
    """
    like = model.get_input_embeddings().weight
    if is_there(folder.baseline_file):
        baseline = torch.from_numpy(_read(folder, vector_width(model))).to(dtype=like.dtype, device=like.device)
        _check(folder, baseline, "move this file and the folder steps away, then run the same command again")
        return baseline
    baseline = baseline_vector(model, kind, tokenizer)
    _check(folder, baseline, "the model or the library has changed since; use another --out folder")
    buffer = io.BytesIO()
    np.save(buffer, baseline.float().cpu().numpy(), allow_pickle=False)
    write_atomically(folder.baseline_file, buffer.getvalue())
    return baseline


def baseline_hash(baseline: torch.Tensor) -> str:
    """sha256 of the vector as float32."""
    return hashlib.sha256(baseline.float().cpu().numpy().tobytes()).hexdigest()


def _read(folder: RunFolder, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The stored vector: (size,), float32. NotReadError where it cannot be read now."""
    path = folder.baseline_file
    repair = "move it away and run the same command again"
    try:
        vector = read_numbers(path)
    except NotReadError:
        raise
    except SftscopeError as error:
        raise SftscopeError(f"{error}; {repair}") from None
    if vector.dtype != np.float32 or vector.shape != (size,):
        got = safe_text(f"{vector.dtype} {vector.shape}", max_length=100)
        raise SftscopeError(f"{path}: expected float32 ({size},) as the model's embeddings, got {got}; {repair}")
    return vector


def _check(folder: RunFolder, baseline: torch.Tensor, advice: str) -> None:
    """SftscopeError unless every intact step file was made with this vector.

    NotReadError where all that are there cannot be read now.
    """
    digest = baseline_hash(baseline)
    unread: NotReadError | None = None
    is_confirmed = False
    for step in folder.steps():
        try:
            named = folder.read_step(step).provenance.get("baseline_vector")
        except StepFileError:
            continue  # it will be recomputed
        except NotReadError as error:
            unread = error
            continue
        if isinstance(named, dict) and named.get("sha256") not in (None, digest):
            raise SftscopeError(
                f"{folder.baseline_file}: is not the baseline vector that {folder.step_file(step).name} "
                f"was made with (another sha256); {advice}"
            )
        is_confirmed = True
    if unread is not None and not is_confirmed:
        raise unread
