"""From a config file to a run folder: train, extract, or both; again, to resume."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.machine_errors import told_in_one_line
from sftscope.foundation.progress import is_first_process
from sftscope.foundation.safe_text import shell_command
from sftscope.inputs.presets import title
from sftscope.inputs.settings import RunSettings, load_settings, resolve_paths
from sftscope.llm.prompting.template_sandbox import start_early
from sftscope.runs.begin import begin
from sftscope.runs.earlier import as_begun, is_earlier
from sftscope.runs.identity import dated, file_hash, probes_are_whole, settings_in
from sftscope.store import RunFolder
from sftscope.store.prompt_hashes import date_of_run

LESS_MEMORY = "use a smaller [extraction] memory_gb, fewer words, or a device with more"


def run(config: Path, out: Path, *, sets: Sequence[str] = (), verify: int | None = None) -> None:
    """Train and extract; finished parts are kept.

    sets: as of `load_settings`. verify: masked states per probe that are scored again, as for `extract`; by default
    as many as the config asks for now, which may differ from what the run was begun with.
    """
    from sftscope.scoring.precision_choice import check_device

    check_device(load_settings(config, sets))
    settings = train(config, out, sets=sets)
    if not is_first_process():
        return  # of several processes that trained one extracts
    extract(out, verify=verify, settings=settings)


def train(config: Path, out: Path, *, sets: Sequence[str] = ()) -> RunSettings:
    """Begin or continue the run folder `out` and fine-tune into it; returns the settings, with paths resolved.

    sets: as of `load_settings`.
    """
    settings, folder = load_settings(config, sets), RunFolder(out)
    start_early(settings.model.template)
    resolved = resolve_paths(settings, config.absolute().parent, source=title(config))
    resolved = begin(settings, resolved, folder, config)
    begun = folder.read_run()
    resolved = as_begun(resolved, settings_in(begun), begun)
    from sftscope.training import accuracy, held_out, sft

    with told_in_one_line("training", "use a smaller [training] micro_batch_size, or gradient_checkpointing = true"):
        sft.train(resolved, folder, cut_otherwise=is_earlier(begun))
        held_out.measure_losses(resolved, folder, partial(sft.loss_examples, training=resolved.training))
        accuracy.measure_accuracy(resolved, folder)
    return resolved


def extract(
    out: Path,
    *,
    steps: Sequence[int] | None = None,
    verify: int | None = None,
    shard: tuple[int, int] = (1, 1),
    place: tuple[int, int] | None = None,
    block: int | None = None,
    settings: RunSettings | None = None,
) -> None:
    """Make the step files of a run folder that are not there yet.

    verify: masked states per probe that are scored again, in place of the run's `check_states`. shard: (I, N), the
    I-th of N processes that share the work by steps. place: (I, N), the I-th of N workers, which share it by blocks
    of `block` probes. settings: as of `open_run`.
    """
    resolved, folder, identity = open_run(out, verify, settings)
    from sftscope.extraction import extract as extraction

    with told_in_one_line("extraction", LESS_MEMORY):
        extraction.extract(resolved, folder, identity=identity, steps=steps, shard=shard, place=place, block=block)


def placebo(out: Path, *, step: int | None = None) -> None:
    """Extract one extracted step of a run folder a second time, by default the last; see `extraction.placebo`."""
    resolved, folder, identity = open_run(out, None)
    from sftscope.extraction.second_extraction import extract_placebo

    with told_in_one_line("placebo", LESS_MEMORY):
        extract_placebo(resolved, folder, identity=identity, step=step)


def open_run(
    out: Path, verify: int | None = None, settings: RunSettings | None = None
) -> tuple[RunSettings, RunFolder, str]:
    """Settings with paths resolved, the folder, and the identity of a run that was begun.

    settings: those of the config that the run is continued with, in place of those in run.toml. They give the same
    results, and may name another device, less memory, or other paths to the same content.
    """
    folder = RunFolder(out)
    content = folder.read_run()
    try:
        kept = settings_in(content, where=lambda table, key: f"{folder.run_file}")
        origin, identity = content["source"]["config_folder"], content["identity"]
    except (KeyError, TypeError):
        raise SftscopeError(f"{folder.run_file}: expected the tables settings and source and an identity") from None
    if not probes_are_whole(folder, content.get("hashes", {})):
        again = (
            "the command that began the run"
            if "attached" in content
            else shell_command(["sftscope", "run", "CONFIG", "--out", str(out)])
        )
        raise SftscopeError(
            f"{folder.probes_file}: is not what the run was begun with (another sha256); {again} writes it again"
        )
    resolved = settings or resolve_paths(kept, out.absolute() / origin, source=str(folder.run_file))
    resolved = dated(resolved, date_of_run(folder))
    tokenizer = resolved.model.tokenizer
    if tokenizer and file_hash(tokenizer) != content.get("hashes", {}).get("tokenizer"):
        raise SftscopeError(
            f"{tokenizer}: is not the tokenizer that the run was begun with (another sha256); put that one back"
        )
    if verify is not None:
        resolved = replace(resolved, extraction=replace(resolved.extraction, check_states=verify))
    return resolved, folder, identity
