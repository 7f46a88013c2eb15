"""Steps and step files for tests: random, sampled, with any metadata, with the hash that they then have."""

import hashlib
import io
import json
from typing import Any

import h5py
import numpy as np

from sample_history import sample_record
from sftscope.lattice.masked_states import every_state, sample_states
from sftscope.store import Sample, SparseEffects, StepRecord
from sftscope.store.steps.step_file import USER_BLOCK, to_bytes


def record(*sizes: int, step: int = 8, seed: int = 0, losses: dict[str, float] | None = None) -> StepRecord:
    rng = np.random.default_rng(seed)
    effects = [rng.normal(size=(2, 1 << n)) * (np.arange(1 << n) > 0) for n in sizes]
    return sample_record(step, effects, rng, losses={"train": 1.5, "eval": 2.5} if losses is None else losses)


def sampled_record(*sizes: int, states: int = 20, replicates: int = 2, seed: int = 0) -> StepRecord:
    """A step of sampled masked states; of probes of few words all are there."""
    rng = np.random.default_rng(seed)
    parts = [every_state(n) if 1 << n <= states else sample_states(n, states, seed) for n in sizes]
    counts = rng.integers(0, 5, len(sizes) * (1 + replicates))
    words = np.repeat(np.array(sizes), 1 + replicates).repeat(counts)
    subsets = [int(rng.integers(1, 1 << min(n, 62))) for n in words.tolist()]
    columns = [rng.normal(size=len(sizes)) ** 2 for _ in range(3)]
    return StepRecord(
        step=8,
        n_variables=np.array(sizes, dtype=np.int32),
        target=rng.integers(0, 1000, len(sizes)),
        scores=rng.normal(size=sum(part.subset.size for part in parts)),
        noise=np.full(len(sizes), 1e-6),
        effects=SparseEffects(
            counts,
            rng.integers(0, 2, counts.sum()).astype(np.uint8),
            np.array(subsets, dtype=np.uint64),
            rng.normal(size=counts.sum()),
            *columns,
        ),
        losses={"train": 1.5},
        sample=Sample.of(parts),
    )


def same(left: StepRecord, right: StepRecord) -> bool:
    names = ("n_variables", "target", "scores", "noise")
    equal = all(np.array_equal(getattr(left, n), getattr(right, n), equal_nan=True) for n in names)
    if left.effects is None or right.effects is None:
        return equal and left.effects is right.effects
    fields = ("and_effects", "or_effects", "zeta", "gap", "objective")
    return equal and all(np.array_equal(getattr(left.effects, n), getattr(right.effects, n)) for n in fields)


def sealed(body: bytes) -> bytes:
    block = f"sftscope-step 1\nsha256 {hashlib.sha256(body).hexdigest()}\n".encode()
    return block.ljust(USER_BLOCK, b"\n") + body


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def step_with(meta: Any) -> bytes:
    """A step file whose meta is `meta`, with the hash that it then has."""
    data = to_bytes(sample_record(8, [np.zeros((2, 4))], np.random.default_rng(0)))
    part = io.BytesIO(data)
    with h5py.File(part, "r+") as file:
        encoded = np.frombuffer(meta if isinstance(meta, bytes) else as_json(meta), dtype="|u1")
        del file["meta"]
        file.create_dataset("meta", data=encoded, chunks=(min(encoded.size, 65_536),), fletcher32=True)
    return sealed(part.getvalue()[USER_BLOCK:])


META = {
    "format": "sftscope-step",
    "version": 1,
    "step": 8,
    "stage": "decomposed",
    "losses": {"train": 1.5},
    "provenance": {
        "identity": "ab",
        "adapter_sha256": "cd",
        "dtype": "float32",
        "zeta_source": ["step 0"],
        "baseline_vector": {"kind": "mean", "sha256": "ef"},
        "verify": {"states": 1, "largest_difference": [None]},
        "precision": {"taken": "float32", "candidates": [{"precision": "tf32", "jaccard": 1}]},
    },
}
GOOD = to_bytes(record(3, 11))
