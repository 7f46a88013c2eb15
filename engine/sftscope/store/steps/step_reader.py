"""The datasets of a step file, read as if a stranger had made them.

Refuses links, virtual and external data, unknown names, other dtypes, ranks, filters or chunks, chunks that
inflate beyond their size, and declared sizes that do not fit together, before anything is allocated. Knows
nothing of paths and hashes; `isolation` runs it in a process of its own.
"""

import io
import zlib
from typing import Any

import h5py
import numpy as np

from sftscope.files.json_text import count, finite, json_object, number
from sftscope.foundation.safe_text import safe_text
from sftscope.lattice.transforms import Relation
from sftscope.store.steps.step_record import (
    CHUNK,
    COLUMNS_EFFECTS,
    MAX_SAMPLED_VARIABLES,
    MAX_STATES,
    MAX_STEP,
    MAX_VARIABLES,
    SAMPLED_VERSION,
    TYPES,
    StepFileError,
    StepRecord,
    dataset_names,
    expected_length,
    from_columns,
    is_loss_name,
    unknown_kind,
)

_MAX_LENGTH = {"meta": 2**24, "n_variables": 2**20, "n_effects": 2**24}
_PLAIN = (h5py.h5z.FILTER_FLETCHER32,)
_PACKED = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)
_CHECKSUM_BYTES = 4


def read_datasets(data: bytes, *, source: str) -> StepRecord:
    """The record in the HDF5 part of a step file; StepFileError, whose message begins with `source`, otherwise."""
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return _read_root(file, source)
    except (StepFileError, MemoryError):
        raise
    except Exception as error:  # hostile bytes reach h5py here: whatever it raises is the file's fault
        raise StepFileError(f"{source}: damaged HDF5: {safe_text(str(error), max_length=200)}") from None


def salvage_datasets(data: bytes, *, source: str) -> StepRecord:
    """The raw scores of a damaged step file as a draft, where everything they need passes its own checksums.

    Effects and all that is decomposed are not looked at. StepFileError if the scores are damaged.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            meta = _read_meta(file, source)
            return _record(file, meta, source, sampled=meta.get("version") == SAMPLED_VERSION, decomposed=False)
    except (StepFileError, MemoryError):
        raise
    except Exception as error:  # as in `read_datasets`
        raise StepFileError(f"{source}: damaged HDF5: {safe_text(str(error), max_length=200)}") from None


def _read_root(file: Any, source: str) -> StepRecord:
    meta = _read_meta(file, source)
    decomposed, sampled = meta.get("stage") == "decomposed", meta.get("version") == SAMPLED_VERSION
    expected = {"meta", *dataset_names(sampled=sampled, decomposed=decomposed)}
    if len(file) != len(expected) or set(file) != expected:
        raise StepFileError(f"{source}: expected the datasets {', '.join(sorted(expected))} and no others")
    return _record(file, meta, source, sampled=sampled, decomposed=decomposed)


def _record(file: Any, meta: dict[str, Any], source: str, *, sampled: bool, decomposed: bool) -> StepRecord:
    columns = _read_sizes(file, source, sampled=sampled)
    states = int(columns["offsets"][-1])
    for name in dataset_names(sampled=sampled, decomposed=decomposed):
        if name not in columns:
            columns[name] = _column(file, name, TYPES[name], expected_length(name, columns, states), source)
            _check_values(name, columns, source)
    if decomposed and not sampled:
        first = columns["offsets"][:-1]
        if columns["and_effects"][first].any() or columns["or_effects"][first].any():
            raise StepFileError(f"{source}: effects: expected 0 at the empty set")
    return from_columns(
        columns,
        step=meta["step"],
        losses={name: _loss(value) for name, value in meta["losses"].items()},
        provenance=meta["provenance"],
    )


def _read_sizes(file: Any, source: str, *, sampled: bool) -> dict[str, Any]:
    """n of each probe, (P,), its number of states, and where its columns begin, (P + 1,), by name."""
    columns = {"n_variables": _column(file, "n_variables", "<i4", None, source)}
    n_variables, most = columns["n_variables"], MAX_SAMPLED_VARIABLES if sampled else MAX_VARIABLES
    if n_variables.min() < 1 or n_variables.max() > most:
        raise StepFileError(f"{source}: n_variables: expected 1…{most} for every probe")
    sizes = np.int64(1) << np.minimum(n_variables, MAX_VARIABLES).astype(np.int64)
    if sampled:
        columns["n_states"] = _column(file, "n_states", "<i8", n_variables.size, source)
        # of more words there are more states than may be stored
        if (
            columns["n_states"].min() < 2
            or (columns["n_states"] > np.where(n_variables > MAX_VARIABLES, MAX_STATES, sizes)).any()
        ):
            raise StepFileError(f"{source}: n_states: expected 2…2^n for every probe")
        sizes = columns["n_states"]
    columns["offsets"] = _column(file, "offsets", "<i8", n_variables.size + 1, source)
    if not np.array_equal(columns["offsets"], np.concatenate([[0], np.cumsum(sizes)])):
        raise StepFileError(f"{source}: offsets do not fit the masked states of the probes")
    return columns


def _check_values(name: str, columns: dict[str, Any], source: str) -> None:
    """Refuse values that no sound writer makes, and that a reader would trip over."""
    values, offsets = columns[name], columns["offsets"]
    n_variables = columns["n_variables"]
    full = np.uint64(2**64 - 1) >> (64 - n_variables).astype(np.uint64)
    ends = (offsets[:-1], offsets[1:] - 1)
    problem = ""
    if name in ("scores", "zeta", "effect", *COLUMNS_EFFECTS):
        problem = "" if np.isfinite(values).all() else "finite values"
    elif name == "states":
        rising = values[1:] > values[:-1]
        rising[offsets[1:-1] - 1] = True
        sound = rising.all() and not values[ends[0]].any() and np.array_equal(values[ends[1]], full)
        problem = "" if sound else "ascending masked states of each probe, the empty and the full one among them"
    elif name == "held_out":
        problem = "" if values.max() <= 1 and not values[ends[0]].any() and not values[ends[1]].any() else "0 or 1"
    elif name == "n_effects":
        sound = values.min() >= 0 and values.max() <= MAX_STATES and values.size % n_variables.size == 0
        problem = "" if sound and values.sum() <= MAX_STATES else "a number of effects for each probe and replicate"
    elif name == "relation":
        problem = "" if values.max() <= max(Relation) else "0 or 1"
    elif name == "subset":
        n_effects = columns["n_effects"]
        own = np.repeat(full, n_effects.size // n_variables.size)
        inside = np.repeat(own, n_effects)
        sound = (values[: inside.size] & ~inside == 0).all() and values[: inside.size].all()
        problem = "" if sound else "words of the probe, at least one"
    if problem:
        raise StepFileError(f"{source}: {name}: expected {problem}")


def _read_meta(file: Any, source: str) -> dict[str, Any]:
    return _checked_meta(_column(file, "meta", "|u1", None, source).tobytes(), source)


def _checked_meta(data: bytes, source: str) -> dict[str, Any]:
    """StepFileError where the JSON of a step file is not what its readers take for granted."""
    try:
        meta = json_object(data)
    except ValueError as error:
        raise StepFileError(f"{source}: meta: not valid JSON: {safe_text(str(error), max_length=200)}") from None
    losses, provenance = meta.get("losses"), meta.get("provenance")
    if (
        not isinstance(losses, dict)
        or not isinstance(provenance, dict)
        or count(meta.get("step"), MAX_STEP) is None
        or meta.get("stage") not in ("scored", "decomposed")
    ):
        raise StepFileError(f"{source}: meta: expected step, stage, losses and provenance")
    if not all(map(is_loss_name, losses)) or not all(_is_number_or_null(value) for value in losses.values()):
        raise StepFileError(f"{source}: meta: expected losses as numbers by name (letters, digits, '_', '.', '-')")
    if wrong := unknown_kind(provenance):
        raise StepFileError(f"{source}: meta: provenance: {wrong} is not of the kind that sftscope writes")
    return meta


def _is_number_or_null(value: Any) -> bool:
    return value is None or number(value) is not None


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
    return finite(value)
