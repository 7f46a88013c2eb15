"""Step files with a valid hash and something in them that must be refused."""

import io
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from sftscope.store.steps.step_file import USER_BLOCK, to_bytes
from step_records import record, sealed


def forged(change: Callable[[Any], None]) -> bytes:
    """A valid step file of two probes, changed by `change(file)`, with the hash made anew."""
    buffer = io.BytesIO(to_bytes(record(3, 11)))
    with h5py.File(buffer, "r+") as file:
        change(file)
    return sealed(buffer.getvalue()[USER_BLOCK:])


def put(file: Any, name: str, data: Any = None, **options: Any) -> None:
    del file[name]
    file.create_dataset(name, data=data, **{"chunks": True, "fletcher32": True, **options})


def soft_link(file: Any) -> None:
    del file["zeta"]
    file["zeta"] = h5py.SoftLink("/gap")


def external_link(file: Any) -> None:
    del file["zeta"]
    file["zeta"] = h5py.ExternalLink("/etc/hostname", "/zeta")


def soft_link_to_external(file: Any) -> None:
    del file["scores"]
    file["scores"] = h5py.SoftLink("/elsewhere/scores")


def virtual_dataset(file: Any) -> None:
    layout = h5py.VirtualLayout(shape=(2,), dtype="<f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(2,))
    del file["zeta"]
    file.create_virtual_dataset("zeta", layout)


def external_storage(file: Any) -> None:
    del file["zeta"]
    file.create_dataset("zeta", shape=(2,), dtype="<f8", external=[("/etc/passwd", 0, 16)])


def huge_declared(name: str, dtype: str, size: int) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        put(file, name, shape=(size,), dtype=dtype, chunks=(65_536,))

    return change


def missing_chunks(file: Any) -> None:
    put(file, "scores", shape=(8 + 2048,), dtype="<f8", chunks=(1024,))


def inflating_chunk(file: Any) -> None:
    """A chunk that says 16 bytes and inflates to 64 MiB."""
    put(file, "zeta", data=np.zeros(2), chunks=(2,), compression="gzip", shuffle=True)
    bomb = zlib.compress(bytes(64 * 2**20), 9) + b"\0\0\0\0"
    file["zeta"].id.write_direct_chunk((0,), bomb)


def small_inflating_chunk(file: Any) -> None:
    put(file, "zeta", data=np.zeros(2), chunks=(2,), compression="gzip", shuffle=True)
    file["zeta"].id.write_direct_chunk((0,), zlib.compress(bytes(17), 9) + b"\0\0\0\0")


def huge_chunk(file: Any) -> None:
    put(file, "zeta", data=np.zeros(2), maxshape=(None,), chunks=(2**20,))


def cyclic_group(file: Any) -> None:
    del file["zeta"]
    group = file.create_group("zeta")
    group["again"] = file["/"]


def many_names(file: Any) -> None:
    for number in range(500):
        file.create_group(f"g{number}")


def meta(text: bytes) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        put(file, "meta", data=np.frombuffer(text, dtype="|u1"))

    return change


def values(name: str, change_values: Callable[[Any], Any], **options: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        put(file, name, data=change_values(file[name][...]), **options)

    return change


def with_nan(array: Any) -> Any:
    array[3 % array.size] = np.nan
    return array


def at_empty_set(array: Any) -> Any:
    array[0] = 1.0
    return array


GOOD_META = b'"losses": {}, "provenance": {}, "stage": "decomposed"'
HOSTILE: dict[str, Callable[[Any], None]] = {
    "soft link": soft_link,
    "external link": external_link,
    "dangling soft link": soft_link_to_external,
    "virtual dataset": virtual_dataset,
    "external storage": external_storage,
    "group for a dataset": cyclic_group,
    "unknown name": lambda file: file.create_dataset("more", data=[1]),
    "missing name": lambda file: file.__delitem__("noise"),
    "many names": many_names,
    "float32": values("scores", lambda a: a.astype("<f4")),
    "big-endian": values("scores", lambda a: a.astype(">f8")),
    "text": values("zeta", lambda a: [b"a", b"b"], fletcher32=False),
    "rank 2": values("scores", lambda a: a.reshape(-1, 8)),
    "scalar": lambda file: put(file, "zeta", data=1.0, chunks=None, fletcher32=False),
    "null space": lambda file: put(file, "zeta", data=h5py.Empty("<f8"), chunks=None, fletcher32=False),
    "too long": values("scores", lambda a: np.r_[a, 0.0]),
    "too short": values("scores", lambda a: a[:-1]),
    "wrong offsets": values("offsets", lambda a: a + 1),
    "n of zero": values("n_variables", lambda a: a * 0),
    "negative n": values("n_variables", lambda a: -a),
    "n of a thousand": values("n_variables", lambda a: a + 1000),
    "no probes": lambda file: put(file, "n_variables", shape=(0,), dtype="<i4", maxshape=(None,)),
    "huge scores": huge_declared("scores", "<f8", 2**40),
    "huge n_variables": huge_declared("n_variables", "<i4", 2**26),
    "huge meta": huge_declared("meta", "|u1", 2**33),
    "missing chunks": missing_chunks,
    "inflating chunk": inflating_chunk,
    "slightly inflating chunk": small_inflating_chunk,
    "huge chunk": huge_chunk,
    "contiguous": lambda file: put(file, "zeta", data=np.zeros(2), chunks=None, fletcher32=False),
    "no checksum": values("zeta", lambda a: a, fletcher32=False),
    "other filter": values("zeta", lambda a: a, compression="lzf"),
    "gzip without shuffle": values("zeta", lambda a: a, compression="gzip"),
    "NaN scores": values("scores", with_nan),
    "NaN effects": values("and_effects", with_nan),
    "infinite zeta": values("zeta", lambda a: a + np.inf),
    "effect at the empty set": values("or_effects", at_empty_set),
    "meta no JSON": meta(b"{"),
    "meta not UTF-8": meta(b"\xff\xfe"),
    "meta a list": meta(b"[]"),
    "meta deep": meta(b"[" * 100_000),
    "meta huge number": meta(b'{"step": ' + b"9" * 5000 + b", " + GOOD_META + b"}"),
    "meta step too big": meta(b'{"step": ' + b"9" * 30 + b", " + GOOD_META + b"}"),
    "meta negative step": meta(b'{"step": -1, ' + GOOD_META + b"}"),
    "meta step true": meta(b'{"step": true, ' + GOOD_META + b"}"),
    "meta losses text": meta(b'{"step": 1, "losses": {"a": "b"}, "provenance": {}, "stage": "decomposed"}'),
    "meta loss too big": meta(
        b'{"step": 1, "losses": {"a": 1' + b"0" * 400 + b'}, "provenance": {}, "stage": "decomposed"}'
    ),
    "meta other stage": meta(b'{"step": 1, "losses": {}, "provenance": {}, "stage": "x"}'),
    "draft with effects": meta(b'{"step": 1, "losses": {}, "provenance": {}, "stage": "scored"}'),
}
