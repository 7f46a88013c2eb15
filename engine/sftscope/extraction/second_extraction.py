"""The placebo: one checkpoint extracted a second time, another way, to see what changes by itself.

All masked states are scored again by plain forwards of the whole prompt, where the step file was made
by the prefix tree: other shapes, other kernels, another order of sums. Of everything a layout can
change this moves v the most, and it is what σ measures. A model whose cache cannot branch is scored in
smaller batches, backwards. ζ is that of the step file; the decomposition is the same.
"""

from collections.abc import Sequence

import numpy as np

from sftscope.extraction.extract import decomposed
from sftscope.extraction.finished import available_steps, is_result
from sftscope.extraction.job import Work, enter_step, prepare
from sftscope.extraction.same_prompts import refuse_other_scored, run_prompts
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import Progress, progress, say
from sftscope.foundation.safe_text import own_command
from sftscope.inputs.settings import RunSettings
from sftscope.lattice.transforms import Floats
from sftscope.scoring.masking import MaskedPrompt
from sftscope.scoring.rescoring import Difference, compare, verify_record
from sftscope.scoring.scorer import NAIVE, Scorer
from sftscope.store import RunFolder, StepRecord
from sftscope.store.steps.step_record import IN_PROCESS

_BATCHES = 3  # of a model that has no other layout


def extract_placebo(settings: RunSettings, folder: RunFolder, *, identity: str, step: int | None = None) -> None:
    """Make the placebo of an extracted step (default: the last one), if it is not there yet.

    settings and identity as for `extract`. SftscopeError where the step has no step file or its
    checkpoint is gone.
    """
    step = _chosen(folder, step)
    folder.sweep()
    if is_result(folder.placebo_file(step), folder.read_placebo, step, identity):
        say(f"the placebo of step {step} is done")
        return
    first = folder.read_step(step)
    if first.provenance.get("identity") != identity:
        raise SftscopeError(
            f"{folder.step_file(step)}: was made with other settings, model or probes; use another --out folder"
        )
    refuse_other_scored(folder.step_file(step), first, run_prompts(folder), folder)
    work = prepare(settings, folder, identity)
    with progress("placebo") as report:
        second, found = _scored_again(work, first, report)
        assert first.effects is not None
        sources = first.provenance.get("zeta_source", [])
        folder.write_placebo(decomposed(work, second, first.effects.zeta, sources))
    sigma, largest = max(part.noise for part in found), max(part.largest for part in found)
    say(f"placebo of step {step}: v differs by σ ≤ {sigma:.1e} and at most {largest:.1e} log-odds")


def _chosen(folder: RunFolder, step: int | None) -> int:
    """The step to extract again, checked."""
    done = folder.steps()
    if not done:
        raise SftscopeError(
            f"{folder.path}: no step to extract again; first run: {own_command('extract', folder.path)}"
        )
    if step is None:
        step = done[-1]
    if step not in done:
        raise SftscopeError(f"--placebo {step}: not an extracted step of {folder.path}: {', '.join(map(str, done))}")
    if step not in available_steps(folder):
        raise SftscopeError(f"{folder.checkpoints}: the checkpoint of step {step} is gone; choose another step")
    return step


def _scored_again(work: Work, first: StepRecord, report: Progress) -> tuple[StepRecord, Sequence[Difference]]:
    """The scores of the same checkpoint in another layout, and what they differ by, probe by probe."""
    losses, adapter, _ = enter_step(work, first.step)
    if first.provenance.get("adapter_sha256") not in (adapter, IN_PROCESS):
        raise SftscopeError(
            f"{work.folder.checkpoints}: the checkpoint of step {first.step} is not the one that was extracted, "
            "its weights changed; choose another step"
        )
    scores, found = [], []
    for number, prompt in enumerate(work.prompts):
        report(number, len(work.prompts), f"step {first.step}")
        scores.append(score_again(work.scorer, prompt))
        found.append(compare(first.scores[first.probe_slice(number)], scores[-1]))
        report(number + 1, len(work.prompts), f"step {first.step}")
    record = StepRecord(
        step=first.step,
        n_variables=first.n_variables,
        target=first.target,
        scores=np.concatenate(scores),
        noise=np.array([difference.noise for difference in found]),
        effects=None,
        sample=first.sample,
        losses=losses,
        provenance={
            **work.provenance,
            "adapter_sha256": adapter,
            "scoring": "naive",
            "placebo": True,
            "verify": verify_record(found, max(map(len, scores))),
        },
    )
    return record, found


def score_again(scorer: Scorer, prompt: MaskedPrompt) -> Floats:
    """v(x_T) of the prompt's masked states, (m,), in another batch layout than `Scorer.score`."""
    subsets = prompt.states.subset
    if scorer.method != NAIVE:
        return scorer.score_naively(prompt, subsets.tolist())
    batches = np.array_split(subsets[::-1], _BATCHES)
    backwards = [scorer.score_naively(prompt, batch.tolist()) for batch in batches]
    return np.concatenate(backwards)[::-1].copy()
