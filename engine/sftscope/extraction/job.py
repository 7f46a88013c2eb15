"""What stays the same over all steps of a run: the model, the masked probes, how they are scored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftscope.compat.positions import positions_of
from sftscope.extraction.finished import BASE_STEP
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import say
from sftscope.inputs.settings import RunSettings
from sftscope.llm.adapters import AdapterSlot
from sftscope.llm.arithmetic import weights_dtype
from sftscope.llm.loading import LLM, device_name, load_llm, machine, threads, versions
from sftscope.llm.prompts import resolve_template
from sftscope.llm.vocabulary import fit_vocabulary
from sftscope.scoring.baseline import baseline_hash, fixed_baseline
from sftscope.scoring.masking import MaskedPrompt, masked_prompts
from sftscope.scoring.position_limits import position_warnings, refuse_beyond_positions
from sftscope.scoring.precision_choice import choose_precision
from sftscope.scoring.prefix_tree import shared_prefix
from sftscope.scoring.scorer import NAIVE, Scorer
from sftscope.store import RunFolder
from sftscope.store.checkpoints import Checkpoint, list_checkpoints, ready_checkpoints
from sftscope.store.ownership import changed_file


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


def prepare(settings: RunSettings, folder: RunFolder, identity: str) -> Work:
    """Load the model in the precision of the run and mask the probes."""
    with folder.in_turn("precision"):
        choice = choose_precision(settings, folder, identity)
    llm = load_llm(settings.model, dtype=weights_dtype(choice["taken"]))
    if line := fit_vocabulary(llm.model, [each.path for each in list_checkpoints(folder.checkpoints)]):
        say(line)
    return prepare_with(llm, settings, folder, identity, choice)


def prepare_with(llm: LLM, settings: RunSettings, folder: RunFolder, identity: str, choice: Mapping[str, Any]) -> Work:
    """As `prepare`, with a model that is there; choice: its precision, as `choose_precision` gives it."""
    precision = choice["taken"]
    template = resolve_template(llm.tokenizer, settings.model.template)
    probes = folder.read_probes()
    extraction = settings.extraction
    prompts = masked_prompts(probes, llm.tokenizer, template, extraction)
    probe_ids, positions = tuple(probe.id for probe in probes), positions_of(llm.model.config)
    refuse_beyond_positions(prompts, probe_ids, positions)
    for line in position_warnings(prompts, probe_ids, positions):
        say(f"warning: {line}")
    baseline = fixed_baseline(folder, llm.model, extraction.baseline_vector, llm.tokenizer)
    memory = extraction.memory_gb * 1e9
    scorer = Scorer(
        llm.model,
        baseline,
        memory,
        precision=precision,
        shared=shared_prefix(prompts),
        longest=max(len(prompt.ids) for prompt in prompts),
    )
    if scorer.method == NAIVE:
        say(f"{llm.name}: no prefix tree is exact on it; every masked state needs a plain forward pass")
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
        "scoring_refused": [vars(refusal) for refusal in scorer.refusals],
        "versions": versions(),
        "threads": threads(),
        "machine": machine(),
    }
    return Work(
        folder=folder,
        settings=settings,
        llm=llm,
        slot=AdapterSlot(llm.model),
        scorer=scorer,
        probe_ids=probe_ids,
        words=tuple(probe.variables for probe in probes),
        prompts=prompts,
        checkpoints=ready_checkpoints(folder.checkpoints),
        provenance=provenance,
    )


def made_on(provenances: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """For the provenance of what several calls or workers scored: their machines, where these are not all the same."""
    found: list[Any] = []
    for provenance in provenances:
        own = {name: provenance.get(name) for name in ("device", "machine", "threads")}
        found += [each for each in provenance.get("made_on", [own]) if each not in found]
    return {"made_on": found} if len(found) > 1 else {}


def enter_step(work: Work, step: int) -> tuple[dict[str, float], str]:
    """Make the model that of `step`; returns its losses and the hash of its adapter (empty at step 0)."""
    work.scorer.weights_changed()
    if step == BASE_STEP:
        work.slot.clear()
        return logged_losses(work.folder, step, ("train", "eval", "accuracy")), ""
    checkpoint = work.checkpoints[step]
    if name := changed_file(checkpoint.path):
        raise SftscopeError(
            f"{checkpoint.path / name}: was changed since it was copied (sha256); move {checkpoint.path.name} away and "
            "attach again"
        )
    # of several eval sets the log has the one that was chosen
    losses = checkpoint.losses() | logged_losses(work.folder, step, ("eval", "accuracy"))
    return losses, work.slot.load(checkpoint.path)


def logged_losses(folder: RunFolder, step: int, names: Sequence[str]) -> dict[str, float]:
    """What the training log has of a checkpoint, by name."""
    rows = [row for row in folder.read_log() if row["step"] == step and row.get("kind") == "checkpoint"]
    return {name: row[name] for row in rows for name in names if name in row}
