"""Fuzz the reader of step files: whatever HDF5 makes of them, it happens in the child, in time, and is one error.

    python tests/benchmarks/bench_fuzz.py --seconds 1800

Mutants of valid and of hostile files, under a valid hash. HDF5's own checksums of its metadata are made anew after
most mutations: otherwise they end a mutant before anything is parsed. Guided by what the reader says: a mutant that is
refused in a new way is mutated further. Some mutants do crash HDF5: those are counted by signal, and kept in the folder
that --keep names. Prints counts as JSON; exit code 1 where an answer took too long or a reader more than 512 MiB.
"""

import argparse
import json
import re
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from hostile_steps import HOSTILE, forged
from sftscope.foundation.errors import SftscopeError
from sftscope.store.steps import sandboxed_reader
from sftscope.store.steps.step_file import USER_BLOCK, to_bytes
from step_records import record, sampled_record, sealed

_SIGNATURES = rb"\x89HDF|OHDR|OCHK|FRHP|FHDB|BTHD|BTLF|FSHD|FAHD|FADB|EAHD"
_LONGEST = 1024  # bytes of a piece of metadata
_MOST_SEEDS = 400
_NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 512, 2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_MASK = 2**32 - 1


@dataclass(frozen=True)
class Seed:
    """The body of a file, and its pieces of metadata: where each begins and its checksum lies."""

    body: bytes
    pieces: tuple[tuple[int, int], ...]


def seed_of(body: bytes) -> Seed:
    """The pieces are found by their checksums: lengths need not be known."""
    pieces = []
    for match in re.finditer(_SIGNATURES, body):
        begin = match.start()
        for end in range(begin + 8, min(begin + _LONGEST, len(body) - 4)):
            # cheap first: a checksum is no run of zeros
            if any(body[end : end + 4]) and lookup3(body[begin:end]) == int.from_bytes(body[end : end + 4], "little"):
                pieces.append((begin, end))
                break
    return Seed(body, tuple(pieces))


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash of that name, which HDF5 takes for its metadata."""

    def rotated(value: int, by: int) -> int:
        return (value << by | value >> 32 - by) & _MASK

    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    words = np.frombuffer(data + bytes(-len(data) % 12), dtype="<u4").tolist()
    for at in range(0, max(len(words) - 3, 0), 3):
        a, b, c = (a + words[at]) & _MASK, (b + words[at + 1]) & _MASK, (c + words[at + 2]) & _MASK
        for by in (4, 6, 8, 16, 19, 4):
            a = (a - c) & _MASK ^ rotated(c, by)
            c = (c + b) & _MASK
            a, b, c = b, c, a
    if not words:
        return c
    a, b, c = ((value + word) & _MASK for value, word in zip((a, b, c), words[-3:], strict=True))
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - rotated(b, by)) & _MASK
        a, b, c = b, c, a
    return b  # where c has come to in seven turns


def mutant(seed: Seed, others: list[Seed], rng: np.random.Generator) -> bytes:
    """A few changes, mostly in metadata; mostly with checksums that fit again."""
    body = bytearray(seed.body)
    for _ in range(int(rng.integers(1, 5))):
        if seed.pieces and rng.random() < 0.8:
            begin, end = seed.pieces[rng.integers(len(seed.pieces))]
        else:
            begin, end = 0, len(body)
        at = int(rng.integers(begin, end))
        match int(rng.integers(5)):
            case 0:
                body[at] ^= 1 << int(rng.integers(8))
            case 1:
                body[at] = int(rng.integers(256))
            case 2:
                size = int(rng.choice([1, 2, 4, 8]))
                value = _NUMBERS[rng.integers(len(_NUMBERS))] & (1 << 8 * size) - 1
                body[at : at + size] = value.to_bytes(size, "little")
            case 3:
                other = others[rng.integers(len(others))].body
                begin = int(rng.integers(len(other)))
                part = other[begin : begin + int(rng.integers(1, 40))]
                body[at : at + len(part)] = part
            case _:
                size = int(rng.choice([2, 4, 8]))
                now = int.from_bytes(body[at : at + size], "little") + int(rng.integers(-9, 10))
                body[at : at + size] = (now & (1 << 8 * size) - 1).to_bytes(size, "little")
    if rng.random() < 0.9:
        for begin, end in seed.pieces:
            body[end : end + 4] = lookup3(bytes(body[begin:end])).to_bytes(4, "little")
    if rng.random() < 0.05:
        del body[int(rng.integers(len(body))) :]
    return bytes(body)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    rng, counts, ways = np.random.default_rng(asked.seed), Counter[str](), set[str]()
    seeds = [seed_of(to_bytes(record(*sizes))[USER_BLOCK:]) for sizes in ((3,), (3, 11), (1, 2, 2))]
    seeds += [seed_of(to_bytes(sampled_record(*sizes))[USER_BLOCK:]) for sizes in ((18,), (64, 3, 20))]
    seeds += [seed_of(forged(change)[USER_BLOCK:]) for name, change in HOSTILE.items() if "inflating" not in name]
    began, slowest = time.monotonic(), 0.0
    while time.monotonic() - began < asked.seconds:
        seed = seeds[rng.integers(len(seeds))]
        body = mutant(seed, seeds, rng)
        counts["mutants"] += 1
        started, said = time.monotonic(), "read"
        try:
            to_bytes(sandboxed_reader.read_apart(sealed(body), source="x"))
        except SftscopeError as error:  # TooSlowError is none of the others
            said = str(error)
        slowest = max(slowest, time.monotonic() - started)
        counts["read whole" if said == "read" else "refused"] += 1
        if "its process" in said:
            counts[f"of these, ended the reader by {said.partition('(')[2].partition(')')[0]}"] += 1
            if asked.keep is not None:
                (asked.keep / f"{counts['mutants']}.h5").write_bytes(sealed(body))
        way = re.sub(r"\d+|'.*?'", "#", said)
        if way not in ways and len(seeds) < _MOST_SEEDS:
            ways.add(way)
            seeds.append(Seed(body, tuple(piece for piece in seed.pieces if piece[1] + 4 <= len(body))))
    sandboxed_reader._READER.stop()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print(
        json.dumps(
            {
                **counts,
                "ways of refusal": len(ways),
                "slowest answer, s": round(slowest, 2),
                "peak memory of a reader, MiB": peak,
                "seconds": round(time.monotonic() - began),
            }
        )
    )
    most = (1 + sandboxed_reader.GENEROUS) * sandboxed_reader.SECONDS + 5  # two tries
    sys.exit(1 if slowest > most or peak > 512 else 0)


if __name__ == "__main__":
    main()
