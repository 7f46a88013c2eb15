"""How often the events, and the verdict's tests, are right on simulated runs whose truth is known.

python tests/benchmarks/bench_events.py [--runs 500] [--probes 16]    every row
python tests/benchmarks/bench_events.py --limits                      what `turning_point.LIMITS` is made of
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from sftscope.analysis.conclusions.held_out import Curve, loss_improves_after, loss_rises, more_accurate_after
from sftscope.analysis.conclusions.verdict import judge
from sftscope.analysis.course.events import Event, Events, events_of
from sftscope.analysis.course.turning_point import monotone_rss
from sftscope.analysis.sets.class_trend import class_trend
from sftscope.analysis.sets.evolution import Change
from sftscope.analysis.sets.views import Trends
from sftscope.analysis.soft.soft_trend import SoftTrend
from simulated_runs import (
    AR,
    LONG,
    TWO_STAGES,
    Kind,
    LossKind,
    SimulatedRun,
    autoregression,
    simulate,
    simulate_loss,
    simulate_rows,
)

AS_IT_IS, LINEAR = "emerged as simulated", "emerged grows linearly from 1 to 60"
STOPS = [  # that a rising loss ends in "stop", and a flat one does not
    (Kind.TWO, LossKind.UP_70, LINEAR),
    (Kind.ONLY_RISE, LossKind.UP_70, LINEAR),
    (Kind.TWO, LossKind.UP_70, AS_IT_IS),
    (Kind.RISE, LossKind.FLAT, AS_IT_IS),
    (Kind.JUMP_20, LossKind.FLAT, AS_IT_IS),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--probes", type=int, default=16)
    parser.add_argument("--limits", action="store_true")
    args = parser.parse_args()
    if args.limits:
        limits()
        return
    for kind in Kind:
        print(f"{kind}: {offline(kind, args.runs, args.probes)}", flush=True)
    for steps in (8, 9, 10, 12, 20):
        print(f"{Kind.JUMP_5}, {steps} checkpoints: {offline(Kind.JUMP_5, args.runs, args.probes, steps)}", flush=True)
    print(f"{Kind.TWO}, 4 probes: {offline(Kind.TWO, args.runs, 4)}", flush=True)
    for kind in (Kind.NOISE, Kind.FALL, Kind.ONLY_FALL, Kind.AR, Kind.WALK, Kind.TWO):
        print(f"online, {kind}: {online(kind, args.runs, args.probes)}", flush=True)
    for loss in LossKind:
        print(f"{loss}: {held_out(loss, args.runs)}", flush=True)
    for kind, loss, emerges in STOPS:
        print(f"{kind}; {loss}; {emerges}: {stops(kind, loss, emerges, args.runs, args.probes)}", flush=True)
    for change in (0.0, -0.019, -0.05, 0.05):
        print(f"held-out loss by rows, {change:+.1%} after its turn: {by_rows(change, args.runs)}", flush=True)
    print(f"accuracy flat, 400 rows: called better in {accuracy(args.runs, 0.0):.3f}; better by .10 in ", end="")
    print(f"{accuracy(args.runs, 0.1):.3f}")


def offline(kind: Kind, runs: int, probes: int, steps: int = 14) -> str:
    """Claims of two stages, of emergence, and how often the intervals hold the true events."""
    found = []
    for seed in range(runs):
        run = simulate(np.random.default_rng(seed), kind, probes=probes, steps=30 if kind in LONG else steps)
        found.append((run, events_of(run.effective, run.removed, run.emerged, run.steps)))
    claimed = np.mean([events.two_stages for _, events in found])
    emergence = np.mean([events.emergence.index is not None for _, events in found])
    text = f"two stages in {claimed:.3f}, emergence in {emergence:.3f}"
    return text + (f"; {covered(found)}" if kind in TWO_STAGES else "")


def covered(found: list[tuple[SimulatedRun, Events]]) -> str:
    parts = []
    for name in ("removal", "sparsest", "emergence"):
        pairs: list[tuple[Event, int]] = [(getattr(events, name), getattr(run, name)) for run, events in found]
        named = [(event, 10 * true) for event, true in pairs if event.low is not None and event.high is not None]
        holds = np.mean([event.low <= true <= event.high for event, true in named])
        width = np.mean([(event.high - event.low) / 10 for event, _ in named])
        parts.append(f"{name} covered {holds:.3f}, {width:.1f} checkpoints wide")
    return "; ".join(parts)


def online(kind: Kind, runs: int, probes: int) -> str:
    """Whether two stages are ever claimed when the run is looked at after every checkpoint, and how late."""
    ever, late = 0, []
    for seed in range(runs):
        run = simulate(np.random.default_rng(seed), kind, probes=probes, steps=14 if kind is Kind.TWO else 30)
        for t in range(1, run.steps.size + 1):
            parts = (part[:, :t] for part in (run.effective, run.removed, run.emerged))
            if events_of(*parts, run.steps[:t], looks=True).two_stages:
                ever += 1
                late.append(t - 1 - run.sparsest)
                break
    delay = f", {np.median(late):.0f} checkpoints after the sparsest in the median" if kind is Kind.TWO else ""
    return f"ever claimed in {ever / runs:.3f}{delay}"


def held_out(kind: LossKind, runs: int) -> str:
    """How often a held-out loss without rows is said to improve after the turn, and to rise to the end."""
    improves, rises = 0, 0
    for seed in range(runs):
        steps, values, turn = simulate_loss(np.random.default_rng(seed), kind)
        curve = Curve(steps, values)
        change = loss_improves_after(curve, int(steps[turn - 1]), int(steps[turn + 1]))
        improves += change is not None and change.is_clear
        rise = loss_rises(curve)
        rises += rise is not None and rise.is_clear
    return f"improves after its turn in {improves / runs:.3f}, rises to the end in {rises / runs:.3f}"


def stops(kind: Kind, loss: LossKind, emerges: str, runs: int, probes: int) -> str:
    """How often the verdict says where to stop, at a step or by one, and how far from the turn of the loss."""
    said, distance = {"at": 0, "by": 0}, []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        run = simulate(rng, kind, probes=probes)
        steps, values, turn = simulate_loss(rng, loss)
        emerged = run.emerged if emerges == AS_IT_IS else linear_emergence(rng, run)
        found = judge(trends_of(run, emerged, steps, values))
        said["at"] += found.stop_step is not None
        said["by"] += found.stop_step is None and found.latest_step is not None
        named = found.latest_step if found.stop_step is None else found.stop_step
        distance += [] if named is None else [abs(named - int(steps[turn])) / 10]
    where = f", {np.mean(distance):.1f} checkpoints from the turn in the mean" if distance else ""
    return ", ".join(f"stop {what} in {count / runs:.3f}" for what, count in said.items()) + where


def linear_emergence(rng: np.random.Generator, run: SimulatedRun) -> np.ndarray:
    """Soft emerged (P, T) that grows linearly from 1 at the first checkpoint to 60 times as much at the last."""
    probes, steps = run.emerged.shape
    noise = 0.25 * rng.normal(size=(probes, steps)) + 0.05 * rng.normal(size=steps)
    return np.linspace(1, 60, steps) * np.exp(noise)


def trends_of(run: SimulatedRun, emerged: np.ndarray, steps: np.ndarray, loss: np.ndarray) -> Trends:
    """What the verdict reads of a run; no interaction is behind it."""
    nothing = [float("nan")] * steps.size
    curves = {each.name: nothing for each in fields(SoftTrend)}
    curves |= {"removed_mean": run.removed.mean(axis=0).tolist(), "emerged_mean": emerged.mean(axis=0).tolist()}
    return Trends(
        steps=steps.tolist(),
        base_step=0,
        events=events_of(run.effective, run.removed, emerged, run.steps),
        soft=SoftTrend(**curves),
        measured={"eval": list(zip(steps.tolist(), loss.tolist(), strict=True))},
        encoded_mean=nothing,
        classes={change: class_trend([]) for change in Change},
        losses={},
        matching_error_all=nothing,
        matching_error_encoded=nothing,
    )


def by_rows(change: float, runs: int) -> str:
    """The same where the loss of each of 400 rows is stored, looked at once and after every checkpoint."""
    said = {(what, looks): 0 for what in ("improves", "rises") for looks in (False, True)}
    for seed in range(runs):
        rows = simulate_rows(np.random.default_rng(seed), change)
        curve = Curve(rows.steps, rows.loss_per_token, each=rows)
        for looks in (False, True):
            better, worse = loss_improves_after(curve, 30, 50, looks=looks), loss_rises(curve, looks=looks)
            said["improves", looks] += better is not None and better.is_clear
            said["rises", looks] += worse is not None and worse.is_clear
    return ", ".join(
        f"{what}{' (one of many looks)' if looks else ''} in {count / runs:.3f}"
        for (what, looks), count in said.items()
    )


def accuracy(runs: int, better: float) -> float:
    """How often 8 later checkpoints are called more accurate: .5 before, .5 + better after, 400 rows of their own."""
    said = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        values = np.concatenate([rng.binomial(400, 0.5, 2), rng.binomial(400, 0.5 + better, 8)]) / 400
        change = more_accurate_after(Curve(np.arange(10) * 10, values, rows=400), 10)
        said += change is not None and change.is_clear
    return said / runs


def limits(curves: int = 20_000) -> None:
    """The 92.5 % quantile of the test's ratio on noise of an autoregression, by number of checkpoints."""
    for steps in (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 24, 30):
        rng = np.random.default_rng(steps)
        ratios = [_ratio(autoregression(rng, steps, AR, 1.0)) for _ in range(curves)]
        print(f"{steps}: {np.quantile(ratios, 0.925):.4g}", flush=True)


def _ratio(curve: np.ndarray) -> float:
    falling, rising_after = monotone_rss(-curve), monotone_rss(-curve[::-1])[::-1]
    turning = max((falling[:-1] + rising_after[1:]).min(), 1e-6)
    return float(min(monotone_rss(curve)[-1], falling[-1]) / turning)


if __name__ == "__main__":
    main()
