"""Histories of all kinds in memory: with two stages or without, with held-out losses that fall, rise, stay or miss."""

from dataclasses import replace

import numpy as np

from histories import history_of
from sample_history import step_grid
from sftscope.analysis.run.run_history import RunHistory

T, PROBES, WORDS = 9, 4, 3


def simulated_history(seed: int) -> RunHistory:
    """One of T checkpoints; the seed decides what it is like."""
    rng = np.random.default_rng(seed)
    place, turn = np.arange(T), int(rng.integers(2, 6))
    fade = np.clip(1 - place / turn, 0, 1) if rng.random() < 0.8 else np.ones(T)
    grow = np.clip((place - turn) / (T - 1 - turn), 0, 1) * rng.choice([0.0, 1.0, 3.0])
    effects = []
    for _ in range(PROBES):
        early, late = (rng.normal(size=(2, 1 << WORDS)) * (rng.random((2, 1 << WORDS)) < 0.6) for _ in range(2))
        kept = np.where(rng.random(early.shape) < 0.2, 1.0, fade[:, None, None])
        part = early * kept + late * grow[:, None, None]
        part[..., 0] = 0
        effects.append(part)
    history = history_of(effects, seed=seed)
    return replace(history, name=f"run {seed}", steps=np.array(step_grid(T)), losses=_losses(rng, turn))


def _losses(rng: np.random.Generator, turn: int) -> dict[str, np.ndarray]:
    """Held-out loss, on some of the checkpoints or none, and sometimes accuracy."""
    place, low = np.arange(T), int(rng.integers(0, T))
    after = np.clip((place - low) / max(1, T - 1 - low), 0, 1)
    loss = (1 + np.exp(-place / turn)) * (1 + rng.choice([-0.2, 0.0, 0.7]) * after) * (1 + 0.003 * rng.normal(size=T))
    measured = rng.choice([0, 1, 4, T, T, T, T])
    loss[rng.permutation(T)[measured:]] = np.nan
    accuracy = np.clip(0.2 + 0.6 * place / T + 0.02 * rng.normal(size=T), 0, 1)
    return ({"eval": loss} if measured else {}) | ({"accuracy": accuracy} if rng.random() < 0.3 else {})
