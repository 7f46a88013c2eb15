"""Small fake run folders for tests: two stages planted in random effects, scores that fit them exactly."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sftscope.inputs.probes import Probe, choose_words, write_probes
from sftscope.lattice.transforms import logical_model
from sftscope.store import Effects, RunFolder, StepRecord
from sftscope.store.steps.step_file import to_bytes

STEPS = (0, 1, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128)
ZETA = 0.02
TEXTS = (
    "the room was not really happy but very quiet and small near the old beach with white sand",
    "staff never smiled although breakfast tasted awful or terrible on every single grey morning [b]hi[/b]",
)


def step_grid(n_steps: int) -> tuple[int, ...]:
    """`n_steps` checkpoints: dense at the start, then every 32 steps."""
    return (STEPS + tuple(range(160, 160 + 32 * n_steps, 32)))[:n_steps]


def write_sample_run(
    path: Path,
    *,
    n_steps: int = 14,
    n_probes: int = 4,
    n: int | Sequence[int] = 5,
    seed: int = 0,
    words: Sequence[str] | None = None,
    two_stages: bool = True,
    accuracy: bool = False,
) -> Path:
    """A run folder at `path`: interactions fade until a third of the run, then others grow; returns `path`.

    n: words per probe, one number or one for each probe. words: the words of every probe's text
    instead of the two built-in texts; they become the variables, in this order. two_stages: without
    it the effects stand still. accuracy: with a held-out accuracy. The scores differ from the logical
    model by less than `ZETA`.
    """
    rng = np.random.default_rng(seed)
    sizes = [n] * n_probes if isinstance(n, int) else list(n)
    probes = [_probe(index, size, words) for index, size in enumerate(sizes)]
    folder = RunFolder(path)
    folder.write_run(
        {
            "format": 1,
            "name": "sample",
            "model": {"name": "tiny-llm"},
            "settings": {"training": {"learning_rate": 1e-4, "checkpoints": [0, 1, 2]}},
            "hashes": {"data": "ab" * 32},
        }
    )
    targets = [{"id": 5, "text": "bad"}] * len(probes)
    folder.probes_file.write_text(write_probes(probes, targets), encoding="utf-8")
    folder.steps_folder.mkdir(exist_ok=True)

    early = [_sparse_effects(rng, size, share=0.25) for size in sizes]
    late = [0.8 * _sparse_effects(rng, size, share=0.35) for size in sizes]
    kept = [rng.random(part.shape) < 0.25 for part in early]
    ends = [rng.uniform(0.1, 1, part.shape) for part in early]  # each at its own time, so that counts slope
    turn = max(1, n_steps // 3)
    for index, step in enumerate(step_grid(n_steps)):
        later = (index - turn) / max(1, n_steps - 1 - turn)
        fade = [np.clip(1 - index / turn / end, 0, 1) if two_stages else 1.0 for end in ends]
        grow = [np.clip(later * 2 - end, 0, 1) if two_stages else 0.0 for end in ends]
        effects = [e * np.where(k, 1.0, f) + b * g for e, g, k, f, b in zip(early, late, kept, fade, grow, strict=True)]
        held_out = 2 * np.exp(-index / turn) + 0.2 + 0.05 * max(0, index - turn)
        losses = {"train": float(2 * np.exp(-index / turn) + 0.1), "eval": float(held_out)}
        if accuracy:
            losses["accuracy"] = 0.5 + 0.4 * index / n_steps
        # plain writes: a test needs no fsync, which is slow on a busy disk
        folder.step_file(step).write_bytes(to_bytes(sample_record(step, effects, rng, losses=losses)))
    return path


def sample_record(
    step: int,
    effects: Sequence[np.ndarray],
    rng: np.random.Generator,
    *,
    losses: dict[str, float] | None = None,
) -> StepRecord:
    """A step's record whose scores are the logical model of `effects` (each (2, 2^n)) within `ZETA`."""
    count = len(effects)
    scores = [
        logical_model(rng.normal(), part[0], part[1]) + np.r_[0.0, rng.uniform(-0.9, 0.9, part.shape[1] - 1)] * ZETA
        for part in effects
    ]
    return StepRecord(
        step=step,
        n_variables=np.array([part.shape[1].bit_length() - 1 for part in effects], dtype=np.int32),
        target=np.full(count, 5, dtype=np.int64),
        scores=np.concatenate(scores),
        noise=np.full(count, 1e-6),
        effects=Effects(
            and_effects=np.concatenate([part[0] for part in effects]),
            or_effects=np.concatenate([part[1] for part in effects]),
            zeta=np.full(count, ZETA),
            gap=np.full(count, 1e-9),
            objective=np.array([np.abs(part).sum() for part in effects]),
        ),
        losses=losses or {},
        provenance={"sftscope": "0.1.0"},
    )


def _probe(index: int, n: int, words: Sequence[str] | None) -> Probe:
    if words is None:
        text = TEXTS[index % len(TEXTS)]
        spans = choose_words(text, n, random.Random(index))
        assert len(spans) == n, f"expected at most 16 words, got {n}"
    else:
        assert len(words) >= n, f"expected {n} words, got {len(words)}"
        text, spans = " ".join(words), ()
        for word in words[:n]:
            start = spans[-1][1] + 1 if spans else 0
            spans = (*spans, (start, start + len(word)))
    return replace(Probe(f"p{index:02d}", "how does the guest feel?", text, "bad"), words=spans)


def _sparse_effects(rng: np.random.Generator, n: int, *, share: float) -> np.ndarray:
    """Random effects (2, 2^n), 0 at the empty set and at OR singletons."""
    effects = rng.normal(size=(2, 1 << n)) * (rng.random((2, 1 << n)) < share)
    effects[:, 0] = 0
    effects[1, [1 << i for i in range(n)]] = 0
    return effects
