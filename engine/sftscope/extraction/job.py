"""What stays the same over all steps of a run: the model, the masked probes, how they are scored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sftscope.compat.positions import positions_of
from sftscope.extraction.finished import BASE_STEP
from sftscope.extraction.same_prompts import differs_from, hashes_of, refuse_other_prompts
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.settings import RunSettings
from sftscope.llm.arithmetic import weights_dtype
from sftscope.llm.loading import LLM, device_name, load_llm, machine, threads, versions
from sftscope.llm.prompting.prompts import resolve_template
from sftscope.llm.prompting.template_date import date_of, sees_date
from sftscope.llm.weights.adapters import AdapterSlot
from sftscope.llm.weights.vocabulary import fit_vocabulary, refuse_without_embedding
from sftscope.scoring.baseline import baseline_hash, fixed_baseline
from sftscope.scoring.masking import MaskedPrompt, masked_prompts
from sftscope.scoring.position_limits import position_warnings, refuse_beyond_positions
from sftscope.scoring.precision_choice import choose_precision
from sftscope.scoring.prefix_tree import shared_prefix
from sftscope.scoring.scorer import NAIVE, Scorer
from sftscope.store import RunFolder
from sftscope.store.checkpoints import Checkpoint, list_checkpoints, ready_checkpoints
from sftscope.store.ownership import changed_file
from sftscope.store.prompt_hashes import date_is_guessed, scored_in


class Entered(NamedTuple):
    """A step whose weights are in place. adapter: hash of the file that they are from, empty at step 0.

    weights: which weights these are, as `weights_content` has it; None where that is not known.
    """

    losses: Mapping[str, float]
    adapter: str
    weights: str | None = None


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
    work = prepare_with(llm, settings, folder, identity, choice)
    if date_is_guessed(folder) and sees_date(llm.tokenizer, resolve_template(llm.tokenizer, settings.model.template)):
        check_guessed_date(work)
    return work


def check_guessed_date(work: Work) -> None:
    """SftscopeError where a finished step was scored on the prompt of another day than is taken for the run's.

    Each that has no hashes of its prompts is scored again at a few masked states, as far as its weights are there.
    """
    day = date_of(work.llm.tokenizer)
    said = f"{work.folder.run_file}: does not store the date that the chat template writes; {day} is taken"
    ready = {BASE_STEP, *work.checkpoints}
    compared = 0
    for step in work.folder.steps():
        record = work.folder.read_step(step) if step in ready else None
        if record is None or scored_in(record.provenance):
            continue
        enter_step(work, step)
        if apart := differs_from(work.scorer, work.prompts[0], record):
            raise SftscopeError(
                f"{said}, when that file was written, but on that day step {step} would score {apart:.3g} log-odds "
                "otherwise than it did; use another --out folder"
            )
        compared += 1
    say(f"warning: {said}, when that file was written; {compared} finished steps were compared, and agree with it")


def prepare_with(llm: LLM, settings: RunSettings, folder: RunFolder, identity: str, choice: Mapping[str, Any]) -> Work:
    """As `prepare`, with a model that is there; choice: its precision, as `choose_precision` gives it."""
    precision = choice["taken"]
    template = resolve_template(llm.tokenizer, settings.model.template)
    probes = folder.read_probes()
    extraction = settings.extraction
    prompts = masked_prompts(probes, llm.tokenizer, template, extraction)
    probe_ids, positions = tuple(probe.id for probe in probes), positions_of(llm.model.config)
    hashes = hashes_of(prompts)
    refuse_other_prompts(folder, probe_ids, hashes)
    named = [f"probe {safe_text(repr(probe), max_length=80)}" for probe in probe_ids]
    texts = [(*prompt.ids, *prompt.targets) for prompt in prompts]
    refuse_without_embedding(llm.model, llm.tokenizer, zip(named, texts, strict=True))
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
        "prompts": hashes,
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


def enter_step(work: Work, step: int) -> Entered:
    """Make the model that of `step`."""
    work.scorer.weights_changed()
    if step == BASE_STEP:
        work.slot.clear()
        return Entered(logged_losses(work.folder, step, ("train", "eval", "accuracy")), "", work.slot.content)
    checkpoint = work.checkpoints[step]
    if name := changed_file(checkpoint.path):
        raise SftscopeError(
            f"{checkpoint.path / name}: was changed since it was copied (sha256); move {checkpoint.path.name} away and "
            "attach again"
        )
    # of several eval sets the log has the one that was chosen
    losses = checkpoint.losses() | logged_losses(work.folder, step, ("eval", "accuracy"))
    adapter = work.slot.load(checkpoint.path)
    return Entered(losses, adapter, work.slot.content)


def logged_losses(folder: RunFolder, step: int, names: Sequence[str]) -> dict[str, float]:
    """What the training log has of a checkpoint, by name."""
    rows = [row for row in folder.read_log() if row["step"] == step and row.get("kind") == "checkpoint"]
    return {name: row[name] for row in rows for name in names if name in row}
