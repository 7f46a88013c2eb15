"""One checkpoint's results as one immutable HDF5 file: the format, its writer and its careful reader.

Format `sftscope-step`, version 1
---------------------------------
The first 512 bytes are an HDF5 user block, text padded with line feeds: the line
``sftscope-step 1``, then ``sha256 HEX`` of all bytes after the block. The HDF5 part holds these
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

An effect that the optimum does not use is exactly 0, and gzip leaves nothing of zeros: at n = 16 the effects of an
LLM take some 64 kB a probe instead of 1 MiB.

A draft (stage ``scored``) lacks the last five. Scores, ζ and effects are finite. A loss that is not
finite (a training that diverged) is null in meta and NaN in a record. In the provenance, ``verify``
is {"states": K, "largest_difference": [per probe]}: K masked states a probe were scored again, which
gave `noise`, and the largest change of v among them, null where there was none; ``precision`` is {"asked",
"taken", "candidates": [{"precision", "jaccard", "sigma", "speed", "steps"}]}: what scoring was computed in, and
what the reduced precisions did to the sets of a few probes (nothing is measured where float32 was asked for).
Attributes are not used:
fletcher32 does not cover them. A reader refuses links, virtual and external data, unknown names,
other dtypes, ranks, filters or chunks, chunks that inflate beyond their size, and declared sizes
that do not fit together, before it allocates anything.
"""

import hashlib
import io
import json
import math
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from engine.errors import SftscopeError
from engine.interactions import Floats
from engine.text import safe_text

FORMAT = "sftscope-step"
VERSION = 1
USER_BLOCK = 512
MAX_FILE_BYTES = 2**29
MAX_STATES = 2**24  # 128 MiB a column; 16,384 probes of 10 words, 256 of 16
MAX_VARIABLES = 20
MAX_STEP = 10**12 - 1

_PER_PROBE = {"n_variables": "<i4", "target": "<i8", "noise": "<f8"}
_PER_PROBE_EFFECTS = {"zeta": "<f8", "gap": "<f8", "objective": "<f8"}
_COLUMNS = {"scores": "<f8"}
_COLUMNS_EFFECTS = {"and_effects": "<f8", "or_effects": "<f8"}
_MAX_LENGTH = {"meta": 2**24, "n_variables": 2**20}
_CHUNK = 65_536
_PLAIN = (h5py.h5z.FILTER_FLETCHER32,)
_PACKED = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)
_CHECKSUM_BYTES = 4


class StepFileError(SftscopeError):
    """A step file that is damaged, foreign or of a newer format; the message names the file."""


@dataclass(frozen=True, eq=False)
class Effects:
    """The decomposition of every probe: columns over all masked states (M,), and per probe (P,)."""

    and_effects: Floats
    or_effects: Floats
    zeta: Floats
    gap: Floats
    objective: Floats


@dataclass(frozen=True, eq=False)
class StepRecord:
    """The content of one step file; `effects` is None in a draft that is only scored.

    scores: (M,), probe after probe, each 2^n long and indexed by subset. losses: by name, in nats
    per response token. provenance: what made the record, JSON.
    """

    step: int
    n_variables: NDArray[np.int32]
    target: NDArray[np.int64]
    scores: Floats
    noise: Floats
    effects: Effects | None
    losses: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Start of each probe in the columns, and their end: (P + 1,)."""
        return np.concatenate([[0], np.cumsum(np.int64(1) << self.n_variables.astype(np.int64))])

    def probe_slice(self, probe: int) -> slice:
        """Where probe number `probe` lies in the columns."""
        offsets = self.offsets
        return slice(int(offsets[probe]), int(offsets[probe + 1]))


def to_bytes(record: StepRecord) -> bytes:
    """The step file as bytes; equal records give equal bytes.

    ValueError for columns that do not fit together, SftscopeError for values that are not finite.
    """
    _check_record(record)
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "step": record.step,
        "stage": "scored" if record.effects is None else "decomposed",
        "losses": _without_nan(dict(record.losses)),
        "provenance": _without_nan(dict(record.provenance)),
    }
    encoded = json.dumps(meta, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    arrays: dict[str, Any] = {
        "meta": np.frombuffer(encoded, dtype="|u1"),
        "n_variables": record.n_variables.astype("<i4"),
        "offsets": record.offsets.astype("<i8"),
        "target": record.target.astype("<i8"),
        "noise": record.noise.astype("<f8"),
        "scores": record.scores.astype("<f8"),
    }
    if record.effects is not None:
        for name in (*_PER_PROBE_EFFECTS, *_COLUMNS_EFFECTS):
            arrays[name] = getattr(record.effects, name).astype("<f8")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=USER_BLOCK, libver=("v110", "v110")) as file:
        for name, array in arrays.items():
            big = array.size > 1024
            file.create_dataset(
                name,
                data=array,
                chunks=(min(array.size, _CHUNK),),
                compression="gzip" if big else None,
                compression_opts=4 if big else None,
                shuffle=big,
                fletcher32=True,
                track_times=False,
            )
    body = buffer.getvalue()[USER_BLOCK:]
    return _user_block(body) + body


def read_step_file(path: Path) -> StepRecord:
    """The record in the step file at `path`. StepFileError where it is missing, damaged or foreign."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device never ends
            raise StepFileError(f"{path}: expected a step file, got something that is not a file")
        if status.st_size > MAX_FILE_BYTES:
            raise StepFileError(f"{path}: {status.st_size} bytes are more than a step file may have ({MAX_FILE_BYTES})")
        data = path.read_bytes()
    except OSError as error:
        raise StepFileError(f"{path}: cannot be read: {error.strerror}") from None
    return from_bytes(data, source=str(path))


def from_bytes(data: bytes, *, source: str) -> StepRecord:
    """The record in the bytes of a step file; `source` names it in errors."""
    _check_user_block(data, source)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return _read_root(file, source)
    except StepFileError:
        raise
    except Exception as error:  # hostile bytes reach h5py here: whatever it raises is the file's fault
        raise StepFileError(f"{source}: damaged HDF5: {safe_text(str(error), max_length=200)}") from None


def _user_block(body: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(body).hexdigest()
    return f"{FORMAT} {VERSION}\nsha256 {digest}\n".encode().ljust(USER_BLOCK, b"\n")


def _check_user_block(data: bytes, source: str) -> None:
    name, _, version = data[:USER_BLOCK].partition(b"\n")[0].partition(b" ")
    if name != FORMAT.encode() or not version.isdigit() or len(data) <= USER_BLOCK:
        raise StepFileError(f"{source}: not a step file of sftscope")
    if int(version) > VERSION:
        raise StepFileError(
            f"{source}: format version {int(version)} is newer than the {VERSION} that this sftscope reads; "
            "update sftscope"
        )
    if data[:USER_BLOCK] != _user_block(memoryview(data)[USER_BLOCK:]):
        raise StepFileError(f"{source}: damaged: its bytes do not match its hash; extract this step again")


def _read_root(file: Any, source: str) -> StepRecord:
    meta = _read_meta(file, source)
    decomposed = meta.get("stage") == "decomposed"
    per_probe = {**_PER_PROBE, **(_PER_PROBE_EFFECTS if decomposed else {})}
    columns = {**_COLUMNS, **(_COLUMNS_EFFECTS if decomposed else {})}
    expected = {"meta", "offsets", *per_probe, *columns}
    if len(file) != len(expected) or set(file) != expected:
        raise StepFileError(f"{source}: expected the datasets {', '.join(sorted(expected))} and no others")
    n_variables = _column(file, "n_variables", "<i4", None, source)
    if n_variables.min() < 1 or n_variables.max() > MAX_VARIABLES:
        raise StepFileError(f"{source}: n_variables: expected 1…{MAX_VARIABLES} for every probe")
    offsets = np.concatenate([[0], np.cumsum(np.int64(1) << n_variables.astype(np.int64))])
    if not np.array_equal(_column(file, "offsets", "<i8", n_variables.size + 1, source), offsets):
        raise StepFileError(f"{source}: offsets do not fit n_variables")
    values = {
        name: _column(file, name, dtype, n_variables.size, source)
        for name, dtype in per_probe.items()
        if name != "n_variables"
    }
    values |= {name: _column(file, name, dtype, int(offsets[-1]), source) for name, dtype in columns.items()}
    for name in ("scores", "zeta", *_COLUMNS_EFFECTS):
        if name in values and not np.isfinite(values[name]).all():
            raise StepFileError(f"{source}: {name}: expected finite values")
    effects = None
    if decomposed:
        effects = Effects(**{name: values.pop(name) for name in (*_PER_PROBE_EFFECTS, *_COLUMNS_EFFECTS)})
        if effects.and_effects[offsets[:-1]].any() or effects.or_effects[offsets[:-1]].any():
            raise StepFileError(f"{source}: effects: expected 0 at the empty set")
    return StepRecord(
        step=meta["step"],
        n_variables=n_variables,
        effects=effects,
        losses={name: _loss(value) for name, value in meta["losses"].items()},
        provenance=meta["provenance"],
        **values,
    )


def _read_meta(file: Any, source: str) -> dict[str, Any]:
    try:
        meta = json.loads(_column(file, "meta", "|u1", None, source).tobytes().decode())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise StepFileError(f"{source}: meta: not valid JSON: {error}") from None
    losses = meta.get("losses") if isinstance(meta, dict) else None
    if (
        not isinstance(losses, dict)
        or not all(value is None or type(value) in (int, float) for value in losses.values())
        or not isinstance(meta.get("provenance"), dict)
        or type(meta.get("step")) is not int
        or not 0 <= meta["step"] <= MAX_STEP
        or meta.get("stage") not in ("scored", "decomposed")
    ):
        raise StepFileError(f"{source}: meta: expected step, stage, losses and provenance")
    return meta


def _column(file: Any, name: str, dtype: str, length: int | None, source: str) -> Any:
    """One dataset as an array, read only after its link, type, rank, storage and size are as declared."""
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise StepFileError(f"{source}: {name}: expected a dataset, got {type(link).__name__}")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise StepFileError(f"{source}: {name}: expected a dataset, got a group")
    if dataset.is_virtual or dataset.external:
        raise StepFileError(f"{source}: {name}: refers to data outside the file")
    if dataset.dtype != np.dtype(dtype) or dataset.ndim != 1:
        raise StepFileError(
            f"{source}: {name}: expected a column of {dtype}, got {dataset.ndim} dimensions of {dataset.dtype}"
        )
    limit = _MAX_LENGTH.get(name, MAX_STATES)
    if not 1 <= dataset.size <= limit or (length is not None and dataset.size != length):
        wanted = f"1…{limit}" if length is None else length
        raise StepFileError(f"{source}: {name}: expected {wanted} values, got {dataset.size}")
    _check_chunks(dataset, name, source)
    return dataset[...]


def _check_chunks(dataset: Any, name: str, source: str) -> None:
    """Refuse storage that our writer does not make: a few bytes can declare or inflate to gigabytes."""
    properties = dataset.id.get_create_plist()
    filters = tuple(properties.get_filter(i)[0] for i in range(properties.get_nfilters()))
    if filters not in (_PLAIN, _PACKED):
        raise StepFileError(f"{source}: {name}: unexpected filters")
    if dataset.chunks is None or dataset.chunks[0] > _CHUNK:
        raise StepFileError(f"{source}: {name}: expected chunks of at most {_CHUNK} values")
    length = dataset.chunks[0]
    count = -(-dataset.size // length)
    if dataset.id.get_num_chunks() != count:
        raise StepFileError(f"{source}: {name}: chunks are missing")
    whole = length * dataset.dtype.itemsize
    for index in range(count):
        chunk = dataset.id.get_chunk_info(index)
        if chunk.filter_mask or chunk.size > 2 * whole + 1024:
            raise StepFileError(f"{source}: {name}: unexpected chunk")
        if filters == _PACKED:
            packed = dataset.id.read_direct_chunk(chunk.chunk_offset)[1][:-_CHECKSUM_BYTES]
            if len(zlib.decompressobj().decompress(packed, whole + 1)) != whole:
                raise StepFileError(f"{source}: {name}: a chunk does not inflate to its size")


def _check_record(record: StepRecord) -> None:
    """ValueError where the record's columns do not have the lengths that the format asks for."""
    probes, states = record.n_variables.size, int(record.offsets[-1])
    if not probes or record.n_variables.min() < 1 or record.n_variables.max() > MAX_VARIABLES:
        raise ValueError(f"expected probes of 1…{MAX_VARIABLES} words, got {record.n_variables}")
    if states > MAX_STATES:
        raise SftscopeError(
            f"step {record.step}: {states} masked states are more than a step file may hold ({MAX_STATES}); "
            "use fewer probes or fewer words"
        )
    columns: dict[str, Any] = {"target": record.target, "noise": record.noise, "scores": record.scores}
    if record.effects is not None:
        columns |= {name: getattr(record.effects, name) for name in (*_PER_PROBE_EFFECTS, *_COLUMNS_EFFECTS)}
    for name, column in columns.items():
        expected = states if name in (*_COLUMNS, *_COLUMNS_EFFECTS) else probes
        if column.shape != (expected,):
            raise ValueError(f"{name}: expected shape ({expected},), got {column.shape}")
        if name in ("scores", "zeta", *_COLUMNS_EFFECTS) and not np.isfinite(column).all():
            raise SftscopeError(f"step {record.step}: {name} are not finite; did the training diverge?")


def _without_nan(value: Any) -> Any:
    """Plain JSON values with None for floats that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _loss(value: float | None) -> float:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else math.nan
