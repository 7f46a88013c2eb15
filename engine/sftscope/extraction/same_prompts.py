"""Whether the probes are the tokens that the run was begun with, and that its steps were scored on."""

from collections.abc import Sequence
from pathlib import Path

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.scoring.masking import MaskedPrompt, prompt_hash
from sftscope.scoring.rescoring import check_scores
from sftscope.scoring.scorer import TOLERANCE, Scorer
from sftscope.store import RunFolder, StepRecord
from sftscope.store.prompt_hashes import first_other, scored_in, stored_in

_STATES = 16  # masked states that are scored again; another date moves all of them


def hashes_of(prompts: Sequence[MaskedPrompt]) -> list[str]:
    """The hash of each prompt, as run.toml and the step files have them."""
    return [prompt_hash(prompt) for prompt in prompts]


def run_prompts(folder: RunFolder) -> tuple[str, ...]:
    """The hashes that the run was begun with; empty where it does not say."""
    return stored_in(folder.read_run()) if folder.exists() else ()


def refuse_other_prompts(folder: RunFolder, probe_ids: Sequence[str], hashes: Sequence[str]) -> None:
    """SftscopeError where a probe is other tokens now than when the run was begun."""
    number = first_other(run_prompts(folder), hashes)
    if number is not None:
        raise SftscopeError(
            f"{folder.run_file}: the prompt of {_named(probe_ids, number)} is other tokens now than when the run was "
            "begun, so that its scores would not belong to the other steps: the tokenizer, the chat template or a "
            "release of transformers changed; restore it, or use another --out folder"
        )


def refuse_other_scored(path: Path, record: StepRecord, known: Sequence[str], folder: RunFolder) -> None:
    """SftscopeError where the step file at `path` was scored on other prompts than `known`, those of the run."""
    number = first_other(known, scored_in(record.provenance))
    if number is not None:
        ids = [probe.id for probe in folder.read_probes()]
        raise SftscopeError(
            f"{path}: was scored on another prompt of {_named(ids, number)} than the one that the run was begun with "
            "(other tokens); move it away, and the same command scores the step again"
        )


def differs_from(scorer: Scorer, prompt: MaskedPrompt, record: StepRecord) -> float:
    """Largest difference in log-odds of the first probe's scores in `record` from those on `prompt`; 0 if rounding."""
    found = check_scores(scorer, prompt, record.scores[record.probe_slice(0)], states=_STATES, seed=(0, 0))
    return 0.0 if found.largest <= TOLERANCE[scorer.precision] else found.largest


def _named(ids: Sequence[str], number: int) -> str:
    return f"probe {safe_text(repr(ids[number]), max_length=80)}" if number < len(ids) else f"probe number {number + 1}"
