"""Which precision a run is scored in: a faster one only with the measurement of what it does to the sets.

Before anything is extracted, a few probes with at most eight words are scored by float32 and by each candidate,
at step 0 and at the latest checkpoint; both are decomposed with the same ζ and their sets compared under the same
τ (5 % of the probe's strongest float32 effect). The choice is made once per run and kept in `precision.json` and
in every step file.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from sftscope.decomposition import decompose
from sftscope.decomposition.noise_bound import RANGE, SCALE_FLOOR
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.settings import RunSettings
from sftscope.lattice.transforms import Floats
from sftscope.llm.arithmetic import FLOAT32, weights_dtype, worth_trying
from sftscope.llm.loading import load_llm, resolve_device
from sftscope.llm.prompting.prompts import resolve_template
from sftscope.llm.weights.adapters import AdapterSlot
from sftscope.llm.weights.vocabulary import fit_vocabulary
from sftscope.scoring.masking import MaskedPrompt, baseline_vector, last_words_kept, mask_probe
from sftscope.scoring.prefix_tree import tree_tokens
from sftscope.scoring.scorer import Scorer
from sftscope.store import RunFolder, StepFileError, write_atomically
from sftscope.store.checkpoints import Checkpoint, ready_checkpoints

AUTO = "auto"
LEAST_JACCARD = 0.95
_WORTH = 1.1  # times as fast as float32, below which nothing is risked
_PROBES = 2
_WORDS = 8  # of a probe; the others are always present
_TAU = 0.05  # of a probe's strongest effect over the steps compared, as the rule max-run has it


@dataclass(frozen=True)
class Trial:
    """What a precision did to a few probes.

    jaccard: of the sets with those of float32, pooled over probes and `steps`. sigma: root mean square change of
    v in log-odds, of the probe and step where it is largest. speed: times that of float32.
    """

    precision: str
    jaccard: float
    sigma: float
    speed: float
    steps: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Scored:
    """Scores of each probe at each step, and seconds per token of the fastest of them."""

    scores: list[list[Floats]]
    per_token: float


def choose_precision(settings: RunSettings, folder: RunFolder, identity: str) -> dict[str, Any]:
    """What the run is scored in (`taken`) and why, as plain values for the provenance.

    settings: with paths resolved. Measured where nothing is stored yet; SftscopeError where this device does not
    have the precision.
    """
    asked, device = settings.extraction.dtype, resolve_device(settings.model.device)
    if asked == FLOAT32:
        return {"asked": asked, "taken": asked, "candidates": []}
    record = _stored(folder, identity)
    if record is None:
        _check_device(asked, device)
        record = _measured(settings, folder, worth_trying(device) if asked == AUTO else (asked,))
        content = {**record, "identity": identity}
        write_atomically(folder.precision_file, (json.dumps(content, indent=1) + "\n").encode())
    _check_device(record["taken"], device)
    return record


def check_device(settings: RunSettings) -> None:
    """SftscopeError where the device of `settings` does not have the precision that they name."""
    _check_device(settings.extraction.dtype, resolve_device(settings.model.device))


def _check_device(precision: str, device: torch.device) -> None:
    if precision == "tf32" and precision not in worth_trying(device):
        raise SftscopeError(
            "[extraction] dtype: tf32 needs a CUDA device of compute capability 8.0 or more, "
            f"this one is {device.type}; start a new run with float32 or auto"
        )


def _stored(folder: RunFolder, identity: str) -> dict[str, Any] | None:
    """The choice as the first intact step of this run has it, else as the run folder has it.

    NotReadError where only such steps are left that cannot be read now: all steps must have the same choice.
    """
    unread: NotReadError | None = None
    for step in folder.steps():
        try:
            provenance = folder.read_step(step).provenance
        except StepFileError:
            continue  # it will be recomputed
        except NotReadError as error:
            unread = error
            continue
        if provenance.get("identity") == identity and isinstance(provenance.get("precision"), Mapping):
            return dict(provenance["precision"])
    content = folder.read_precision()
    if content is None and unread is not None:
        raise unread
    if content is None or content.get("identity") != identity:
        return None
    return {key: value for key, value in content.items() if key != "identity"}


def _measured(settings: RunSettings, folder: RunFolder, candidates: Sequence[str]) -> dict[str, Any]:
    """Try the candidates, take one, and say so."""
    asked = settings.extraction.dtype
    say(f"precision: measuring {', '.join(candidates)} against float32")
    tries = _Tries(settings, folder)
    trials = [tries.trial(candidate, stop_early=asked == AUTO) for candidate in candidates]
    fit = [trial for trial in trials if trial.jaccard >= LEAST_JACCARD and trial.speed >= _WORTH]
    taken = asked if asked != AUTO else max(fit, key=lambda trial: trial.speed).precision if fit else FLOAT32
    for trial in trials:
        say(
            f"precision: {trial.precision}: Jaccard {trial.jaccard:.2f} with float32, σ {trial.sigma:.1e} log-odds, "
            f"{trial.speed:.1f}× as fast ({len(tries.prompts)} probes, "
            f"{'steps' if len(trial.steps) > 1 else 'step'} {', '.join(map(str, trial.steps))})"
        )
        if asked != AUTO and trial.jaccard < LEAST_JACCARD:
            say(
                f"warning: {asked} changes the sets of interactions by itself (Jaccard below {LEAST_JACCARD}): "
                "some removed and newly emerged interactions will be its noise; use float32 or auto"
            )
    if asked == AUTO:
        say(f"precision: taking {taken} (required: a Jaccard of at least {LEAST_JACCARD} and {_WORTH}× the speed)")
    return {
        "asked": asked,
        "taken": taken,
        "probes": tries.probes,
        "n_variables": [prompt.n_variables for prompt in tries.prompts],
        "candidates": [{**asdict(trial), "steps": list(trial.steps)} for trial in trials],
    }


class _Tries:
    """Float32 scores and effects of a few probes at step 0 and the latest checkpoint, to compare others with."""

    def __init__(self, settings: RunSettings, folder: RunFolder) -> None:
        self.settings = settings
        ready = ready_checkpoints(folder.checkpoints)
        self.checkpoints: dict[int, Checkpoint | None] = {0: None}
        if ready:
            self.checkpoints[max(ready)] = ready[max(ready)]
        every = folder.read_probes()
        self._chosen = every[:: max(1, -(-len(every) // _PROBES))][:_PROBES]
        self.probes = [probe.id for probe in self._chosen]
        self.prompts: list[MaskedPrompt] = []
        self._exact = self._score(FLOAT32)
        self._zeta = [self._bounds(step) for step in range(len(self.checkpoints))]
        self._effects = [self._decomposed(step, scores) for step, scores in enumerate(self._exact.scores)]
        self._tau = [_TAU * max(np.abs(at_step[p]).max() for at_step in self._effects) for p in range(len(self.probes))]

    def trial(self, precision: str, *, stop_early: bool) -> Trial:
        """Compare `precision` with float32. stop_early: once a step keeps too little; the others say no more then."""
        kept = found = 0
        sigma = 0.0

        def enough(step: int, scores: list[Floats]) -> bool:
            nonlocal kept, found, sigma
            effects = self._decomposed(step, scores)
            for p, tau in enumerate(self._tau):
                ours, theirs = np.abs(effects[p]) > tau, np.abs(self._effects[step][p]) > tau
                kept, found = kept + int((ours & theirs).sum()), found + int((ours | theirs).sum())
                sigma = max(sigma, float(np.sqrt(np.mean((scores[p] - self._exact.scores[step][p]) ** 2))))
            return stop_early and kept < LEAST_JACCARD * found

        scored = self._score(precision, enough)
        steps = tuple(self.checkpoints)[: len(scored.scores)]
        speed = self._exact.per_token / scored.per_token
        return Trial(precision, kept / found if found else 1.0, sigma, speed, steps)

    def _score(
        self, precision: str, enough: Callable[[int, list[Floats]], bool] = lambda step, scores: False
    ) -> _Scored:
        """Scores at one step after the other, until they are enough."""
        extraction = self.settings.extraction
        llm = load_llm(self.settings.model, dtype=weights_dtype(precision))
        fit_vocabulary(llm.model, [each.path for each in self.checkpoints.values() if each is not None])
        if not self.prompts:
            template = resolve_template(llm.tokenizer, self.settings.model.template)
            prompts = [mask_probe(probe, llm.tokenizer, template, extraction.target) for probe in self._chosen]
            self.prompts = [last_words_kept(prompt, min(prompt.n_variables, _WORDS)) for prompt in prompts]
        baseline = baseline_vector(llm.model, extraction.baseline_vector, llm.tokenizer)
        longest = max(len(prompt.ids) for prompt in self.prompts)
        scorer = Scorer(llm.model, baseline, extraction.memory_gb * 1e9, precision=precision, longest=longest)
        # of a CPU its own time: what else runs on it is not the precision's
        clock = time.process_time if llm.device.type == "cpu" else time.perf_counter
        slot, per_token = AdapterSlot(llm.model), float("inf")
        result: list[list[Floats]] = []
        for checkpoint in self.checkpoints.values():
            if checkpoint is not None:
                slot.load(checkpoint.path)
                scorer.weights_changed()
            scores = []
            for prompt, probe in zip(self.prompts, self.probes, strict=True):
                assert scorer.method  # it is tried out before it is timed
                started = clock()
                scores.append(scorer.score(prompt))
                per_token = min(per_token, (clock() - started) / tree_tokens(prompt))
                if not np.isfinite(scores[-1]).all():
                    name = safe_text(repr(probe), max_length=80)
                    raise SftscopeError(f"probe {name}: scores in {precision} are not finite; use another dtype")
            result.append(scores)
            if enough(len(result) - 1, scores):
                break
        return _Scored(result, per_token)

    def _bounds(self, step: int) -> list[float]:
        """ζ of each probe at the `step`-th checkpoint, from its float32 scores or from those of the first."""
        extraction, exact = self.settings.extraction, self._exact.scores
        if extraction.zeta_of == RANGE:
            return [extraction.zeta_range * max(float(np.ptp(v)), SCALE_FLOOR) for v in exact[step]]
        return [extraction.zeta * max(abs(float(v[-1] - v[0])), SCALE_FLOOR) for v in exact[0]]

    def _decomposed(self, step: int, scores: Sequence[Floats]) -> list[Floats]:
        """AND and OR effects of each probe, in one array."""
        tolerance = self.settings.extraction.tolerance
        results = [decompose(v, zeta, tolerance=tolerance) for v, zeta in zip(scores, self._zeta[step], strict=True)]
        return [np.concatenate([result.and_effects[0], result.or_effects[0]]) for result in results]
