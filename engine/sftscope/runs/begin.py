"""The beginning of a run: write run.toml and its probes, or check that those there belong to the same run.

run.toml comes first and holds what results depend on: the settings as the user wrote them, and hashes of data,
template, model and probes.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from sftscope.files.opening import read_plain
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.progress import say
from sftscope.inputs.probes import Probe, write_probes
from sftscope.inputs.settings import ModelSettings, RunSettings, resolve_paths, settings_from_tables
from sftscope.inputs.word_influence import influence_warnings
from sftscope.runs.earlier import MEANING, with_former_target
from sftscope.runs.identity import (
    check_same,
    dated,
    file_hash,
    identity_of,
    model_hash,
    probes_are_whole,
    settings_in,
)
from sftscope.store import RunFolder, ownership, write_atomically
from sftscope.store.prompt_hashes import as_table, date_is_guessed, date_of_run
from sftscope.store.run_folder import RUN_FORMAT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TRAINED_HERE = ("data", "training")  # tables of settings that an attached run does not have


def begin(settings: RunSettings, resolved: RunSettings, folder: RunFolder, config: Path) -> RunSettings:
    """Begin a run that is trained here. resolved: the settings, with paths resolved.

    Returns these, with the date that the chat template writes in this run.
    """
    name = config.stem if config.stem != "config" else config.absolute().parent.name
    parent = os.path.relpath(config.absolute().parent, folder.path.absolute())
    source = {"config": config.name, "config_folder": parent}
    _begin(settings, resolved, folder, config, name, {"source": source})
    return dated(resolved, date_of_run(folder))


def begin_attached(
    tables: Mapping[str, Any],
    out: Path,
    attached: Mapping[str, Any],
    probes_file: Path,
    *,
    template: str = "",
    tokenizer: Path | None = None,
    last: Path | None = None,
) -> None:
    """Begin the run folder `out` for checkpoints that others wrote, or check that the one there belongs to them.

    tables: the settings, without data and training; their paths are absolute or relative to `out`. attached: what
    is known of the training, for readers of run.toml. template: the chat template of the training, where it is not the
    base model's own; kept in the run. tokenizer: a folder with the files of the training's, where it added tokens; kept
    in the run too. last: the last checkpoint that is there, on which the influence of words is measured too.
    """
    folder, settings = RunFolder(out), settings_from_tables(tables, trained_here=False)
    resolved = resolve_paths(replace(settings, probes=replace(settings.probes, file=str(probes_file.absolute()))), out)
    if template:
        settings = replace(settings, model=replace(settings.model, template_file=folder.template_file.name))
    files = {} if tokenizer is None else {path.name: read_plain(path) for path in sorted(tokenizer.iterdir())}
    if tokenizer is not None:
        kept = folder.tokenizer_folder.relative_to(folder.path) / "tokenizer.json"
        settings = replace(settings, model=replace(settings.model, tokenizer=str(kept)))
        resolved = replace(resolved, model=replace(resolved.model, tokenizer=str(tokenizer / "tokenizer.json")))
    origin = {"source": {"config_folder": "."}, "attached": dict(attached)}
    _begin(settings, resolved, folder, out, out.absolute().name, origin, template=template, tokenizer=files, last=last)


def _begin(
    settings: RunSettings,
    resolved: RunSettings,
    folder: RunFolder,
    config: Path,
    name: str,
    origin: Mapping[str, Any],
    *,
    template: str = "",
    tokenizer: Mapping[str, bytes] = MappingProxyType({}),
    last: Path | None = None,
) -> None:
    """The files that a run begins with: run.toml, then the others, so that what lies next to it is the run's.

    name: of a run that is not there yet. origin: where it is from; with `attached`, others trained. template: as of
    `begin_attached`, and last too. tokenizer: the content of its files.
    """
    from sftscope.extraction.same_prompts import hashes_of, refuse_other_prompts
    from sftscope.llm.loading import device_name, load_positions, model_name, resolve_device, versions
    from sftscope.llm.prompting.probe_tokens import chosen_probes
    from sftscope.llm.prompting.prompts import resolve_template, template_hash
    from sftscope.llm.prompting.targets import target_warnings
    from sftscope.llm.prompting.template_date import freeze_date, sees_date, today
    from sftscope.scoring.influential_words import InfluentialWords
    from sftscope.scoring.masking import mask_probe, probe_targets, states_of
    from sftscope.scoring.position_limits import refuse_beyond_positions

    trained_here = "attached" not in origin
    if folder.exists():
        begun = folder.read_run()
        earlier = settings_in(begun)
        settings, resolved = (with_former_target(each, earlier, begun) for each in (settings, resolved))
    loaded = _tokenizer(resolved.model, template)
    kind = resolve_template(loaded, resolved.model.template)
    day = date_of_run(folder) if folder.exists() else settings.model.template_date or today()
    freeze_date(loaded, day or today())
    if sees_date(loaded, kind) and not settings.model.template_date and not _is_undated(folder):
        settings = dated(settings, day)
    influential = InfluentialWords(resolved, loaded, kind, last)
    probes = chosen_probes(
        resolved.probes, loaded, kind, before=_probes_before(folder), influential=influential, note=say
    )
    for probe in probes:  # raises where a probe has too many masked states
        states_of(probe, resolved.extraction.masked_states, resolved.extraction.seed)
    prompts = [mask_probe(probe, loaded, kind, resolved.extraction.target) for probe in probes]
    refuse_beyond_positions(prompts, [probe.id for probe in probes], load_positions(resolved.model.path))
    targets = probe_targets(prompts, loaded)
    rows = write_probes(probes, targets).encode()
    collisions = _collisions(resolved, probes, loaded) if trained_here else {}
    hashes = {
        **(_data_hashes(resolved) if trained_here else {}),
        "probes": hashlib.sha256(rows).hexdigest(),
        "template": template_hash(loaded, kind),
        "model": model_hash(Path(resolved.model.path)),
        **({"tokenizer": file_hash(resolved.model.tokenizer)} if resolved.model.tokenizer else {}),
    }
    planned = {folder.probes_file: rows, **({folder.template_file: template.encode()} if template else {})}
    planned |= {folder.tokenizer_folder / name: content for name, content in tokenizer.items()}
    identity = identity_of(settings, hashes)
    ownership.refuse_others_files(folder, planned, identity)
    if folder.exists():
        check_same(folder, settings, hashes, config)
        refuse_other_prompts(folder, [probe.id for probe in probes], hashes_of(prompts))
    else:
        for line in [*target_warnings(probes, [target["text"] for target in targets]), *influence_warnings(probes)]:
            say(f"warning: {line}")
        kept = settings.as_dict()
        folder.write_run(
            {
                "format": RUN_FORMAT,
                "meaning": MEANING,
                "identity": identity,
                "name": name,
                "model": {"name": model_name(resolved.model.path), "template": kind},
                "device": device_name(resolve_device(resolved.model.device)),
                **origin,
                "hashes": hashes,
                **as_table(hashes_of(prompts)),
                **({"collisions": collisions} if collisions else {}),
                "versions": versions(),
                "settings": kept if trained_here else {key: kept[key] for key in kept if key not in _TRAINED_HERE},
            }
        )
    if tokenizer:
        folder.tokenizer_folder.mkdir(exist_ok=True)
    for path, content in planned.items():
        _write_unless_there(path, content)


def _is_undated(folder: RunFolder) -> bool:
    """Whether a run is there of which nobody stored the date: its identity has none."""
    return folder.exists() and date_is_guessed(folder)


def _probes_before(folder: RunFolder) -> Sequence[Probe]:
    """The probes of a run that was begun, unless they changed since: their words stay, whatever finds words here."""
    if not folder.exists():
        return ()
    try:
        return folder.read_probes() if probes_are_whole(folder, folder.read_run().get("hashes", {})) else ()
    except NotReadError:
        raise
    except SftscopeError:  # damaged, or gone: they are chosen again, and written again if they are the same
        return ()


def _tokenizer(model: ModelSettings, template: str) -> "PreTrainedTokenizerBase":
    from sftscope.llm.loading import templated_tokenizer
    from sftscope.llm.prompting.prompts import set_template

    if not template:
        return templated_tokenizer(model)
    tokenizer = templated_tokenizer(replace(model, system=""))
    set_template(tokenizer, template, model.system)
    return tokenizer


def _collisions(
    resolved: RunSettings, probes: Sequence[Probe], tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, list[str]]:
    """Labels that look the same to the target, said once at the beginning."""
    from sftscope.llm.prompting.label_collisions import collision_warning
    from sftscope.training.data.labels import find_collisions

    collisions = find_collisions(resolved, [probe.response for probe in probes], tokenizer)
    if line := collision_warning(collisions):
        say(f"warning: {line}")
    return collisions


def _data_hashes(resolved: RunSettings) -> dict[str, str]:
    from sftscope.training.data.sources import content_hash, source_of

    return {
        "train": content_hash(source_of(resolved.data, "train")),
        "eval": content_hash(source_of(resolved.data, "eval")),
        "labels": file_hash(resolved.data.labels),
    }


def _write_unless_there(path: Path, content: bytes) -> None:
    try:
        if read_plain(path) == content:
            return
    except (OSError, SftscopeError):
        pass
    write_atomically(path, content)
