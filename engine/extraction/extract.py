"""The recipe over checkpoints: each one scored, decomposed, and stored as one step file.

A step file that verifies is never computed again. The noise bound ζ of a probe is fixed over all
steps: measured at step 0; where the model does not react to the words there, the median over the
steps, for which all steps are scored (and kept as drafts) before any is decomposed.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import RunSettings
from engine.decomposition.step_effects import with_effects
from engine.errors import SftscopeError
from engine.extraction.baseline import baseline_hash, fixed_baseline
from engine.extraction.checks import Difference, check_scores, refuse_beyond_tolerance, verify_record
from engine.extraction.device_points import points_on
from engine.extraction.masking import MaskedPrompt, mask_probe
from engine.extraction.precision import choose_precision
from engine.extraction.prefix_tree import shared_prefix
from engine.extraction.scoring import NAIVE, SCALE_FLOOR, Scorer
from engine.interactions import Floats
from engine.llm.adapters import AdapterSlot
from engine.llm.loading import LLM, device_name, load_llm, versions
from engine.llm.precision import weights_dtype
from engine.llm.prompts import resolve_template
from engine.progress import Progress, progress, say
from engine.store import RunFolder, StepFileError, StepRecord
from engine.store.checkpoints import Checkpoint, ready_checkpoints

BASE_STEP = 0
_SAVE_SECONDS = 60.0  # of scoring that a kill may cost


@dataclass(frozen=True, eq=False)
class Work:
    """What stays the same over all steps of a run."""

    folder: RunFolder
    settings: RunSettings
    llm: LLM
    slot: AdapterSlot
    scorer: Scorer
    probe_ids: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]  # of each probe
    prompts: tuple[MaskedPrompt, ...]
    checkpoints: Mapping[int, Checkpoint]
    provenance: Mapping[str, Any]


def available_steps(folder: RunFolder) -> tuple[int, ...]:
    """Step 0 and every checkpoint that is ready."""
    return tuple(sorted({BASE_STEP, *ready_checkpoints(folder.checkpoints)}))


def extract(
    settings: RunSettings,
    folder: RunFolder,
    *,
    identity: str,
    steps: Sequence[int] | None = None,
    shard: tuple[int, int] = (1, 1),
) -> None:
    """Make the step files of `steps` (default: all that can be made) that are not there yet.

    settings: with paths resolved. identity: hash of what results depend on, stored with each step. shard: (I, N),
    1 ≤ I ≤ N: every N-th of the steps from the I-th on. Other processes may extract the same run at the same time.
    """
    wanted = available_steps(folder) if steps is None else tuple(sorted(set(steps)))
    if missing := set(wanted) - set(available_steps(folder)):
        known = ", ".join(map(str, available_steps(folder)))
        raise SftscopeError(f"{folder.checkpoints}: no checkpoint of step {min(missing)}; there are {known}")
    folder.sweep()
    share = wanted[shard[0] - 1 :: shard[1]]
    todo = [step for step in share if not is_done(folder, step, identity)]
    for step in set(share).difference(todo):
        folder.drop_draft(step)  # where a kill came between the result and this
    if not todo:
        say(f"extraction: all {len(share)} steps are done")
        return
    work = prepare(settings, folder, identity)
    with folder.in_turn("zeta"):
        zeta, source = _known_zeta(folder, identity)
        if zeta is None:
            with progress("scoring") as report:
                zeta, source = _measure_zeta(work, wanted, report)
    with progress("extraction") as report:
        _extract_unclaimed(work, todo, zeta, source, report)


def _extract_unclaimed(work: Work, todo: Sequence[int], zeta: Floats, source: Sequence[str], report: Progress) -> None:
    """Every step of `todo`, those that other processes are at work on last: by then they are done, or given up."""
    left, told = list(todo), False
    while left:
        before = len(left)
        for step in tuple(left):
            with work.folder.claimed(step) as mine:
                if not mine:
                    continue
                if not _is_done_by_now(work, step):
                    done = len(todo) - len(left)
                    scored = _scored(work, step, lambda note, done=done: report(done, len(todo), note))
                    work.folder.write_step(decomposed(work, scored, zeta, source))
                left.remove(step)
                report(len(todo) - len(left), len(todo), f"step {step}")
        if len(left) == before:
            if not told:
                say(f"steps {', '.join(map(str, left))} are being extracted by another process; waiting for it")
            told = True
            time.sleep(1)


def _is_done_by_now(work: Work, step: int) -> bool:
    """As `is_done`, in silence: whether another process has made the step since."""
    try:
        return work.folder.read_step(step).provenance.get("identity") == work.provenance["identity"]
    except StepFileError:
        return False


def is_done(folder: RunFolder, step: int, identity: str) -> bool:
    """Whether a whole step file of this run is there; a damaged one is made again."""
    return is_result(folder.step_file(step), folder.read_step, step, identity)


def is_result(path: Path, read: Callable[[int], StepRecord], step: int, identity: str) -> bool:
    """Whether `path` holds whole results of a step; SftscopeError where they are those of another run."""
    if not path.exists():
        return False
    try:
        record = read(step)
    except StepFileError as error:
        say(f"{error}; extracting step {step} again")
        return False
    if record.provenance.get("identity") != identity:
        raise SftscopeError(f"{path}: was made with other settings, model or probes; use another --out folder")
    return True


def prepare(settings: RunSettings, folder: RunFolder, identity: str) -> Work:
    """Load the model in the precision of the run and mask the probes."""
    with folder.in_turn("precision"):
        choice = choose_precision(settings, folder, identity)
    precision = choice["taken"]
    llm = load_llm(settings.model, dtype=weights_dtype(precision))
    template = resolve_template(llm.tokenizer, settings.model.template)
    probes = folder.read_probes()
    extraction = settings.extraction
    prompts = tuple(mask_probe(probe, llm.tokenizer, template, extraction.target) for probe in probes)
    baseline = fixed_baseline(folder, llm.model, extraction.baseline_vector, llm.tokenizer)
    memory = extraction.memory_gb * 1e9
    scorer = Scorer(llm.model, baseline, memory, precision=precision, shared=shared_prefix(prompts))
    if scorer.method == NAIVE:
        say(f"{llm.name}: no prefix tree is exact on it; every masked state is scored by a plain batched forward")
    provenance = {
        "identity": identity,
        "model": llm.name,
        "dtype": precision,
        "precision": choice,
        "device": device_name(llm.device),
        "baseline_vector": {
            "kind": extraction.baseline_vector,
            "sha256": baseline_hash(baseline),
        },
        "scoring": scorer.method,
        "versions": versions(),
    }
    return Work(
        folder=folder,
        settings=settings,
        llm=llm,
        slot=AdapterSlot(llm.model),
        scorer=scorer,
        probe_ids=tuple(probe.id for probe in probes),
        words=tuple(probe.variables for probe in probes),
        prompts=prompts,
        checkpoints=ready_checkpoints(folder.checkpoints),
        provenance=provenance,
    )


def _scored(work: Work, step: int, report: Any) -> StepRecord:
    """The raw scores of a step: from its draft where there is one, else from the model.

    A draft may hold the first probes only: what a call had finished when it was interrupted, or a minute before.
    """
    draft = _draft_of(work, step)
    if draft is not None and draft.n_variables.size == len(work.prompts):
        return draft
    losses, adapter = enter_step(work, step)
    scores, found = _begun(draft, adapter)
    states, saved = work.settings.extraction.check_states, time.monotonic()

    def record() -> StepRecord:
        done = work.prompts[: len(found)]
        return StepRecord(
            step=step,
            n_variables=np.array([prompt.n_variables for prompt in done], dtype=np.int32),
            target=np.array([prompt.target for prompt in done], dtype=np.int64),
            scores=np.concatenate(scores[: len(found)]),  # Ctrl-C may come between the two
            noise=np.array([difference.noise for difference in found]),
            effects=None,
            losses=losses,
            provenance={**work.provenance, "adapter_sha256": adapter, "verify": verify_record(found, states)},
        )

    try:
        for number in range(len(found), len(work.prompts)):
            prompt, probe = work.prompts[number], work.probe_ids[number]
            report(f"step {step}, probe {number + 1} of {len(work.prompts)}")
            made = work.scorer.score(prompt)
            difference = check_scores(
                work.scorer, prompt, made, states=states, seed=(work.settings.extraction.seed, number)
            )
            refuse_beyond_tolerance(difference, step=step, probe=probe, precision=work.scorer.precision)
            scores.append(made)
            found.append(difference)
            if time.monotonic() - saved > _SAVE_SECONDS:
                work.folder.write_draft(record())
                saved = time.monotonic()
    except BaseException:  # Ctrl-C too: what is scored is kept; raised again as it is
        if found:
            with contextlib.suppress(SftscopeError):  # the first failure is the one to tell
                work.folder.write_draft(record())
        raise
    return record()


def _draft_of(work: Work, step: int) -> StepRecord | None:
    """The draft of a step, whole or begun, if it is one of this run; a damaged one is made again."""
    if not work.folder.draft_file(step).exists():
        return None
    try:
        draft = work.folder.read_draft(step)
    except StepFileError as error:
        say(f"{error}; scoring step {step} again")
        return None
    provenance, verify = draft.provenance, draft.provenance.get("verify")
    checked = verify.get("states") if isinstance(verify, Mapping) else None
    fits = (
        provenance.get("identity") == work.provenance["identity"]
        and provenance.get("dtype") == work.provenance["dtype"]  # auto may have chosen again since
        and checked == work.settings.extraction.check_states
        and draft.n_variables.tolist() == [prompt.n_variables for prompt in work.prompts][: draft.n_variables.size]
    )
    return draft if fits else None


def _begun(draft: StepRecord | None, adapter: str) -> tuple[list[Floats], list[Difference]]:
    """Scores and checks of the probes in a draft, if it was made with the same weights."""
    if draft is None or draft.provenance.get("adapter_sha256") != adapter:
        return [], []
    largest = draft.provenance["verify"].get("largest_difference")
    if not isinstance(largest, list) or len(largest) != draft.n_variables.size:
        return [], []
    found = [
        Difference(float(noise), np.nan if most is None else most, -1)
        for noise, most in zip(draft.noise, largest, strict=True)
    ]
    return [draft.scores[draft.probe_slice(number)] for number in range(len(found))], found


def enter_step(work: Work, step: int) -> tuple[dict[str, float], str]:
    """Make the model that of `step`; returns its losses and the hash of its adapter (empty at step 0)."""
    work.scorer.weights_changed()
    if step == BASE_STEP:
        work.slot.clear()
        rows = [row for row in work.folder.read_log() if row["step"] == step and row.get("kind") == "checkpoint"]
        return {side: row[side] for row in rows for side in ("train", "eval") if side in row}, ""
    checkpoint = work.checkpoints[step]
    return checkpoint.losses(), work.slot.load(checkpoint.path)


def _known_zeta(folder: RunFolder, identity: str) -> tuple[Floats | None, list[str]]:
    """ζ and its source as the first finished step of this run has them."""
    for step in folder.steps():
        if is_done(folder, step, identity):
            record = folder.read_step(step)
            assert record.effects is not None
            return record.effects.zeta, list(record.provenance["zeta_source"])
    return None, []


def _measure_zeta(work: Work, wanted: Sequence[int], report: Progress) -> tuple[Floats, list[str]]:
    """ζ of each probe, (P,), and where it was measured.

    Writes a draft for each step that had to be scored, so that a kill loses none.
    """
    factor = work.settings.extraction.zeta

    def reaction(step: int, done: int, total: int) -> Floats:
        """|v(x_N) - v(x_∅)| of each probe."""
        record = _scored(work, step, lambda note: report(done, total, note))
        work.folder.write_draft(record)
        report(done + 1, total, f"step {step}")
        ends = record.offsets
        return np.abs(record.scores[ends[1:] - 1] - record.scores[ends[:-1]])

    base = reaction(BASE_STEP, 0, 1)
    silent = base < SCALE_FLOOR
    if not silent.any():
        return factor * base, [f"step {BASE_STEP}"] * len(base)
    steps = sorted({BASE_STEP, *wanted})
    say(f"{int(silent.sum())} probes do not move the base model: ζ from the median over {len(steps)} steps")
    median = np.median([reaction(step, i, len(steps)) for i, step in enumerate(steps)], axis=0)
    scale = np.where(silent, np.maximum(median, SCALE_FLOOR), base)
    return factor * scale, ["median over steps" if s else f"step {BASE_STEP}" for s in silent]


def decomposed(work: Work, scored: StepRecord, zeta: Floats, source: Sequence[str]) -> StepRecord:
    """The record with its effects; on a GPU the interior points of a whole batch are found there."""
    device = work.llm.device
    return with_effects(
        scored,
        zeta,
        source,
        words=work.words,
        tolerance=work.settings.extraction.tolerance,
        points=partial(points_on, device) if device.type == "cuda" else None,
    )
