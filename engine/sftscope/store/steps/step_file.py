"""One checkpoint's results as one immutable HDF5 file: the format, its writer and its careful reader.

Format `sftscope-step`, versions 1 and 2
----------------------------------------
The first 512 bytes are an HDF5 user block, text padded with line feeds: the line
``sftscope-step 1`` (or 2), then ``sha256 HEX`` of all bytes after the block. The HDF5 part holds these
datasets in its root and nothing else; P ≥ 1 probes, M = Σ_p 2^n_p ≤ 2^24 masked states. Probe p
owns ``[offsets[p], offsets[p+1])`` of each column over masked states, indexed by subset. All are
stored in chunks of at most 65,536 values, every chunk present, with fletcher32 alone or shuffle,
gzip and fletcher32; floats are little-endian doubles, scores and effects are log-odds in nats.

============== ======= ========= =====================================================
name           dtype   length    meaning
============== ======= ========= =====================================================
meta           uint8   any       UTF-8 JSON object: format, version, step, stage, losses, provenance
n_variables    int32   P         n of each probe
offsets        int64   P + 1     start of each probe in the columns below
target         int64   P         token id of the scored token
noise          float64 P         root mean square of v's change in another batch layout; NaN: not measured
scores         float64 M         v(x_T) of Eq. (1)
zeta           float64 P         bound on |h - v|
gap            float64 P         certified relative gap of the decomposition
objective      float64 P         value of the program that was solved
and_effects    float64 M         I_and(S), 0 at the empty set
or_effects     float64 M         I_or(S), 0 at the empty set and at singletons
============== ======= ========= =====================================================

Version 2 is written where not all masked states of every probe are there, with n up to 64. Probe p owns
``n_states[p]`` states, M = Σ_p n_states[p], ascending from the empty to the full one, and in place of the last two:

============== ======= ========= =====================================================
n_states       int64   P         masked states of each probe
states         uint64  M         bitmask of the words that are present
held_out       uint8   M         1 where the state was not matched but predicted
n_effects      int64   P (1 + B) effects that are not 0: of probe 0, of its B replicates, of probe 1 …
relation       uint8   E         0 AND, 1 OR
subset         uint64  E         bitmask of the words of the interaction
effect         float64 E         I; E = max(Σ n_effects, 1), with one row of zeros where there is no effect at all
============== ======= ========= =====================================================

An effect that the optimum does not use is exactly 0, and gzip leaves nothing of zeros: at n = 16 the effects of an
LLM take some 64 kB per probe instead of 1 MiB.

A draft (stage ``scored``) lacks all from zeta on, and may hold the first probes of the run only. Scores,
ζ and effects are finite. A loss that is not finite (a training that diverged) is null in meta and NaN
in a record. In the provenance, ``verify`` is {"states": K, "largest_difference": [per probe]}: K masked
states a probe were scored again, which gave `noise`, and the largest change of v among them, null where
there was none; ``precision`` is {"asked", "taken", "candidates": [{"precision", "jaccard", "sigma",
"speed", "steps"}]}: what scoring was computed in, and what the reduced precisions did to the sets of a
few probes (nothing is measured where float32 was asked for); ``weights_sha256`` says which weights were
scored, empty for the base's own: steps that share it share their results (files of earlier releases lack it).
Attributes are not used:
fletcher32 does not cover them. A reader refuses links, virtual and external data, unknown names,
other dtypes, ranks, filters or chunks, chunks that inflate beyond their size, and declared sizes
that do not fit together, before it allocates anything.
"""

import hashlib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sftscope.files.opening import failed_to_read, raise_if_not_read, read_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import whole_number
from sftscope.store.steps.sandboxed_reader import read_apart, salvage_apart
from sftscope.store.steps.step_record import (
    CHUNK,
    COLUMNS_EFFECTS,
    MAX_SAMPLED_VARIABLES,
    MAX_STATES,
    MAX_VARIABLES,
    SAMPLED_VERSION,
    VERSION,
    NewerFormatError,
    StepFileError,
    StepRecord,
    columns_of,
    expected_length,
    is_loss_name,
    unknown_kind,
)

FORMAT = "sftscope-step"
USER_BLOCK = 512
MAX_FILE_BYTES = 2**29


def to_bytes(record: StepRecord) -> bytes:
    """The step file as bytes; equal records give equal bytes.

    ValueError for columns that do not fit together, SftscopeError for values that are not finite.
    """
    columns = columns_of(record)
    _check_record(record, columns)
    version = VERSION if record.sample is None else SAMPLED_VERSION
    meta = {
        "format": FORMAT,
        "version": version,
        "step": record.step,
        "stage": "scored" if record.effects is None else "decomposed",
        "losses": _without_nan(dict(record.losses)),
        "provenance": _without_nan(dict(record.provenance)),
    }
    encoded = json.dumps(meta, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    arrays: dict[str, Any] = {"meta": np.frombuffer(encoded, dtype="|u1"), **columns}
    import h5py  # 0.1 s and 10 MB: whoever only reads leaves them to the child

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=USER_BLOCK, libver=("v110", "v110")) as file:
        for name, array in arrays.items():
            big = array.size > 1024
            file.create_dataset(
                name,
                data=array,
                chunks=(min(array.size, CHUNK),),
                compression="gzip" if big else None,
                compression_opts=4 if big else None,
                shuffle=big,
                fletcher32=True,
                track_times=False,
            )
    body = buffer.getvalue()[USER_BLOCK:]
    return _user_block(body, version) + body


def read_step_file(path: Path) -> StepRecord:
    """The record in the step file at `path`. StepFileError where it is missing, damaged or foreign.

    NotReadError where the machine does not let it be read now: that says nothing of the file.
    What only looks like a step file of ours is opened in a process of its own; see `isolation`.
    """
    data = _bytes_of(path)
    _check_user_block(data, str(path))
    return read_apart(data, source=str(path))


def salvage_step_file(path: Path) -> StepRecord:
    """The raw scores in a damaged step file, as a draft; StepFileError if they are damaged too.

    NotReadError as for `read_step_file`.
    The whole-file hash is not asked for: each dataset has its own checksum, and HDF5 one of the rest. The first line
    is: no other file is opened, in however many processes.
    """
    data = _bytes_of(path)
    _check_first_line(data, str(path))
    return salvage_apart(data, source=str(path))


def _bytes_of(path: Path) -> bytes:
    try:
        return read_plain(path, MAX_FILE_BYTES)
    except (OSError, MemoryError, SftscopeError) as error:
        raise_if_not_read(path, error)
        reason = error if isinstance(error, SftscopeError) else failed_to_read(path, error)
        raise StepFileError(str(reason)) from None


def from_bytes(data: bytes, *, source: str) -> StepRecord:
    """The record in the bytes of a step file, read in this process; `source` names it in errors."""
    from sftscope.store.steps.step_reader import read_datasets

    _check_user_block(data, source)
    return read_datasets(data, source=source)


def _user_block(body: bytes | memoryview, version: int) -> bytes:
    digest = hashlib.sha256(body).hexdigest()
    return f"{FORMAT} {version}\nsha256 {digest}\n".encode().ljust(USER_BLOCK, b"\n")


def _check_first_line(data: bytes, source: str) -> int:
    """The version of the format; StepFileError for what is no step file, or a newer one."""
    name, _, digits = data[:USER_BLOCK].partition(b"\n")[0].partition(b" ")
    version = whole_number(digits.decode("latin-1"))
    if name != FORMAT.encode() or version is None or len(data) <= USER_BLOCK:
        raise StepFileError(f"{source}: not a step file of sftscope")
    if version > SAMPLED_VERSION:
        raise NewerFormatError(
            f"{source}: format version {version} is newer than the {SAMPLED_VERSION} that this sftscope reads; "
            "update sftscope"
        )
    return version


def _check_user_block(data: bytes, source: str) -> None:
    version = _check_first_line(data, source)
    if data[:USER_BLOCK] != _user_block(memoryview(data)[USER_BLOCK:], version):
        raise StepFileError(f"{source}: damaged: its bytes do not match its hash; extract this step again")


def _check_record(record: StepRecord, columns: Mapping[str, Any]) -> None:
    """ValueError where the record's columns do not have the lengths that the format asks for."""
    probes, states = record.n_variables.size, int(record.offsets[-1])
    most = MAX_VARIABLES if record.sample is None else MAX_SAMPLED_VARIABLES
    if not probes or record.n_variables.min() < 1 or record.n_variables.max() > most:
        raise ValueError(f"expected probes of 1…{most} words, got {record.n_variables}")
    if (wrong := unknown_kind(record.provenance)) or not all(map(is_loss_name, record.losses)):
        raise ValueError(f"expected a provenance and losses as a reader takes them, got {wrong or set(record.losses)}")
    if states > MAX_STATES:
        raise SftscopeError(
            f"step {record.step}: {states} masked states are more than a step file may hold ({MAX_STATES}); "
            "use fewer probes or fewer words"
        )
    for name, column in columns.items():
        if (expected := expected_length(name, columns, states)) and column.shape != (expected,):
            raise ValueError(f"{name}: expected shape ({expected},), got {column.shape}")
        if name in ("scores", "zeta", "effect", *COLUMNS_EFFECTS) and not np.isfinite(column).all():
            raise SftscopeError(f"step {record.step}: {name} are not finite; did the training diverge?")


def _without_nan(value: Any) -> Any:
    """Plain JSON values with None for floats that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
