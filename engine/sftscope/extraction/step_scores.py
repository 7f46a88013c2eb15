"""The raw scores of one step: from its draft where there is one, else from the model, kept as they come."""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sftscope.extraction.job import Entered, Work, enter_step, made_on
from sftscope.files.opening import is_there
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import say
from sftscope.lattice.transforms import Floats
from sftscope.scoring.rescoring import Difference, check_scores, refuse_beyond_tolerance, verify_record
from sftscope.store import NewerFormatError, Sample, StepFileError, StepRecord

SAVE_SECONDS = 60.0  # of scoring that a kill may cost


def scored_step(
    work: Work, step: int, report: Any, *, block: range | None = None, enter: Callable[..., Entered] = enter_step
) -> StepRecord:
    """The raw scores of a step, or of a block of its probes: from its draft where there is one, else from the model.

    A draft may hold the first probes only: what a call had finished when it was interrupted, or a minute before.
    enter: makes the model that of the step, as `enter_step`.
    """
    probes = range(len(work.prompts)) if block is None else block
    draft = draft_of(
        work, step, probes, lambda: work.folder.read_draft(step, block), work.folder.draft_file(step, block)
    )
    if draft is not None and draft.n_variables.size == len(probes):
        return draft
    entered = enter(work, step)
    begun = _begun(draft, entered.adapter)
    if draft is not None and begun[0]:
        work = replace(work, provenance={**work.provenance, **made_on([draft.provenance, work.provenance])})
    return score_model(work, step, entered, report, begun=begun, block=block)


def score_model(
    work: Work,
    step: int,
    entered: Entered,
    report: Any,
    *,
    begun: tuple[list[Floats], list[Difference]] | None = None,
    block: range | None = None,
) -> StepRecord:
    """The raw scores of the model as it is now, as those of `step`.

    begun: scores and checks of the first probes, where they are known. block: only these probes.
    """
    probes = range(len(work.prompts)) if block is None else block
    scores, found = ([], []) if begun is None else begun
    states, saved = work.settings.extraction.check_states, time.monotonic()
    known = {} if entered.weights is None else {"weights_sha256": entered.weights}

    def record() -> StepRecord:
        done = [work.prompts[number] for number in probes[: len(found)]]
        return StepRecord(
            step=step,
            n_variables=np.array([prompt.n_variables for prompt in done], dtype=np.int32),
            target=np.array([prompt.target for prompt in done], dtype=np.int64),
            scores=np.concatenate(scores[: len(found)]),  # Ctrl-C may come between the two
            noise=np.array([difference.noise for difference in found]),
            effects=None,
            sample=Sample.of([prompt.states for prompt in done]),
            losses=entered.losses,
            provenance={
                **work.provenance,
                "adapter_sha256": entered.adapter,
                **known,
                "verify": verify_record(found, states),
            },
        )

    precision = "int8" if work.settings.model.quantization == "int8" else work.scorer.precision
    try:
        for number in probes[len(found) :]:
            prompt, probe = work.prompts[number], work.probe_ids[number]
            note = f"step {step}, probe {number + 1} of {len(work.prompts)}"
            report(note)
            made = work.scorer.score(prompt, partial(_tell, report, note, prompt.n_states))
            difference = check_scores(
                work.scorer, prompt, made, states=states, seed=(work.settings.extraction.seed, number)
            )
            refuse_beyond_tolerance(difference, step=step, probe=probe, precision=precision)
            scores.append(made)
            found.append(difference)
            if time.monotonic() - saved > SAVE_SECONDS:
                work.folder.write_draft(record(), block)
                saved = time.monotonic()
    except BaseException:  # Ctrl-C too: what is scored is kept; raised again as it is
        if found:
            with contextlib.suppress(SftscopeError):  # the first failure is the one to tell
                work.folder.write_draft(record(), block)
        raise
    return record()


def _tell(report: Callable[[str], None], note: str, n_states: int, scored: int) -> None:
    report(f"{note}, {scored:,} of {n_states:,} masked states")


def draft_of(work: Work, step: int, probes: range, read: Callable[[], StepRecord], file: Path) -> StepRecord | None:
    """The scores of (the first of) `probes` in `file`, if they are of this run; a damaged one is recomputed.

    NotReadError where the file cannot be read now.
    """
    if not is_there(file):
        return None
    try:
        draft = read()
    except NewerFormatError:
        raise
    except StepFileError as error:
        say(f"{error}; scoring step {step} again")
        return None
    provenance, verify = draft.provenance, draft.provenance.get("verify")
    checked = verify.get("states") if isinstance(verify, Mapping) else None
    fits = (
        provenance.get("identity") == work.provenance["identity"]
        and provenance.get("dtype") == work.provenance["dtype"]  # auto may have chosen again since
        and provenance.get("prompts") == work.provenance.get("prompts")
        and checked == work.settings.extraction.check_states
        and all(
            np.array_equal(draft.states_of(place).subset, work.prompts[number].states.subset)
            for place, number in enumerate(probes[: draft.n_variables.size])
        )
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
