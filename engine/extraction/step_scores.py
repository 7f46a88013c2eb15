"""The raw scores of one step: from its draft where there is one, else from the model, kept as they come."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.errors import SftscopeError
from engine.extraction.checks import Difference, check_scores, refuse_beyond_tolerance, verify_record
from engine.extraction.work import Work, enter_step
from engine.interactions import Floats
from engine.progress import say
from engine.store import StepFileError, StepRecord

SAVE_SECONDS = 60.0  # of scoring that a kill may cost


def scored_step(work: Work, step: int, report: Any) -> StepRecord:
    """The raw scores of a step: from its draft where there is one, else from the model.

    A draft may hold the first probes only: what a call had finished when it was interrupted, or a minute before.
    """
    draft = _draft_of(work, step)
    if draft is not None and draft.n_variables.size == len(work.prompts):
        return draft
    losses, adapter = enter_step(work, step)
    return score_model(work, step, losses, adapter, report, begun=_begun(draft, adapter))


def score_model(
    work: Work,
    step: int,
    losses: Mapping[str, float],
    adapter: str,
    report: Any,
    *,
    begun: tuple[list[Floats], list[Difference]] | None = None,
) -> StepRecord:
    """The raw scores of the model as it is now, as those of `step`.

    adapter: the hash of what was put in. begun: scores and checks of the first probes, where they are known.
    """
    scores, found = ([], []) if begun is None else begun
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

    precision = "int8" if work.settings.model.quantization == "int8" else work.scorer.precision
    try:
        for number in range(len(found), len(work.prompts)):
            prompt, probe = work.prompts[number], work.probe_ids[number]
            report(f"step {step}, probe {number + 1} of {len(work.prompts)}")
            made = work.scorer.score(prompt)
            difference = check_scores(
                work.scorer, prompt, made, states=states, seed=(work.settings.extraction.seed, number)
            )
            refuse_beyond_tolerance(difference, step=step, probe=probe, precision=precision)
            scores.append(made)
            found.append(difference)
            if time.monotonic() - saved > SAVE_SECONDS:
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
