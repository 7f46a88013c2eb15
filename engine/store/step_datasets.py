"""The datasets of a step file, read as if a stranger had made them.

Refuses links, virtual and external data, unknown names, other dtypes, ranks, filters or chunks, chunks that
inflate beyond their size, and declared sizes that do not fit together, before anything is allocated. Knows
nothing of paths and hashes; `isolation` runs it in a process of its own.
"""

import io
import json
import math
import zlib
from typing import Any

import h5py
import numpy as np

from engine.store.step_record import (
    CHUNK,
    COLUMNS,
    COLUMNS_EFFECTS,
    MAX_STATES,
    MAX_STEP,
    MAX_VARIABLES,
    PER_PROBE,
    PER_PROBE_EFFECTS,
    Effects,
    StepFileError,
    StepRecord,
)
from engine.text import safe_text

_MAX_LENGTH = {"meta": 2**24, "n_variables": 2**20}
_PLAIN = (h5py.h5z.FILTER_FLETCHER32,)
_PACKED = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)
_CHECKSUM_BYTES = 4


def read_datasets(data: bytes, *, source: str) -> StepRecord:
    """The record in the HDF5 part of a step file; StepFileError, whose message begins with `source`, otherwise."""
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return _read_root(file, source)
    except StepFileError:
        raise
    except Exception as error:  # hostile bytes reach h5py here: whatever it raises is the file's fault
        raise StepFileError(f"{source}: damaged HDF5: {safe_text(str(error), max_length=200)}") from None


def salvage_datasets(data: bytes, *, source: str) -> StepRecord:
    """The raw scores of a damaged step file as a draft, where everything they need passes its own checksums.

    Effects and all that is decomposed are not looked at. StepFileError where the scores are not whole.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            meta = _read_meta(file, source)
            n_variables, offsets = _read_sizes(file, source)
            return _record(file, meta, n_variables, offsets, source, decomposed=False)
    except StepFileError:
        raise
    except Exception as error:  # as in `read_datasets`
        raise StepFileError(f"{source}: damaged HDF5: {safe_text(str(error), max_length=200)}") from None


def _read_root(file: Any, source: str) -> StepRecord:
    meta = _read_meta(file, source)
    decomposed = meta.get("stage") == "decomposed"
    expected = {"meta", "offsets", *PER_PROBE, *COLUMNS}
    if decomposed:
        expected |= {*PER_PROBE_EFFECTS, *COLUMNS_EFFECTS}
    if len(file) != len(expected) or set(file) != expected:
        raise StepFileError(f"{source}: expected the datasets {', '.join(sorted(expected))} and no others")
    n_variables, offsets = _read_sizes(file, source)
    return _record(file, meta, n_variables, offsets, source, decomposed=decomposed)


def _read_sizes(file: Any, source: str) -> tuple[Any, Any]:
    """n of each probe, (P,), and where its columns begin, (P + 1,)."""
    n_variables = _column(file, "n_variables", "<i4", None, source)
    if n_variables.min() < 1 or n_variables.max() > MAX_VARIABLES:
        raise StepFileError(f"{source}: n_variables: expected 1…{MAX_VARIABLES} for every probe")
    offsets = np.concatenate([[0], np.cumsum(np.int64(1) << n_variables.astype(np.int64))])
    if not np.array_equal(_column(file, "offsets", "<i8", n_variables.size + 1, source), offsets):
        raise StepFileError(f"{source}: offsets do not fit n_variables")
    return n_variables, offsets


def _record(
    file: Any, meta: dict[str, Any], n_variables: Any, offsets: Any, source: str, *, decomposed: bool
) -> StepRecord:
    per_probe = {**PER_PROBE, **(PER_PROBE_EFFECTS if decomposed else {})}
    columns = {**COLUMNS, **(COLUMNS_EFFECTS if decomposed else {})}
    values = {
        name: _column(file, name, dtype, n_variables.size, source)
        for name, dtype in per_probe.items()
        if name != "n_variables"
    }
    values |= {name: _column(file, name, dtype, int(offsets[-1]), source) for name, dtype in columns.items()}
    for name in ("scores", "zeta", *COLUMNS_EFFECTS):
        if name in values and not np.isfinite(values[name]).all():
            raise StepFileError(f"{source}: {name}: expected finite values")
    effects = None
    if decomposed:
        effects = Effects(**{name: values.pop(name) for name in (*PER_PROBE_EFFECTS, *COLUMNS_EFFECTS)})
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
    if dataset.chunks is None or dataset.chunks[0] > CHUNK:
        raise StepFileError(f"{source}: {name}: expected chunks of at most {CHUNK} values")
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


def _loss(value: float | None) -> float:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else math.nan
