"""From a config file to a run folder: train, extract, or both; again, to resume.

run.toml is written first and holds what results depend on: the settings as the user wrote them,
and hashes of data, template, model and probes. A folder begun with something else is refused.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from sftscope.files.hashes import file_sha256
from sftscope.files.opening import raise_if_not_read, read_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.machine_errors import told_in_one_line
from sftscope.foundation.progress import is_first_process, say
from sftscope.inputs.presets import title
from sftscope.inputs.probes import read_probes, write_probes
from sftscope.inputs.settings import RunSettings, load_settings, resolve_paths, settings_from_tables
from sftscope.store import RunFolder, ownership, write_atomically
from sftscope.store.run_folder import RUN_FORMAT

LESS_MEMORY = "use a smaller [extraction] memory_gb, fewer words, or a device with more"
# settings that change how fast, where, and how well checked a result is computed, not which
_FREE = {
    ("model", "device"),
    ("model", "path"),
    ("model", "template_file"),  # its text is in the hash of the template
    ("data", "dataset_info"),  # what its entries lead to is in the hashes of train and eval
    ("probes", "file"),
    ("training", "accuracy_rows"),
    ("extraction", "memory_gb"),
    ("extraction", "check_states"),
}


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
    resolved = resolve_paths(settings, config.absolute().parent, source=title(config))
    _begin(settings, resolved, folder, config)
    from sftscope.training import accuracy, sft

    with told_in_one_line("training", "use a smaller [training] micro_batch_size, or gradient_checkpointing = true"):
        sft.train(resolved, folder)
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
        again = "the command that began the run" if "attached" in content else f"'sftscope run CONFIG --out {out}'"
        raise SftscopeError(
            f"{folder.probes_file}: is not what the run was begun with (another sha256); {again} writes it again"
        )
    resolved = settings or resolve_paths(kept, out.absolute() / origin, source=str(folder.run_file))
    if verify is not None:
        resolved = replace(resolved, extraction=replace(resolved.extraction, check_states=verify))
    return resolved, folder, identity


def probes_are_whole(folder: RunFolder, hashes: Mapping[str, Any]) -> bool:
    """Whether probes.jsonl has the content that run.toml names; True where it names none.

    NotReadError where it cannot be read now.
    """
    wanted = hashes.get("probes")
    try:
        return not wanted or hashlib.sha256(read_plain(folder.probes_file)).hexdigest() == wanted
    except (OSError, MemoryError, SftscopeError) as error:
        raise_if_not_read(folder.probes_file, error)
        return False


def _begin(settings: RunSettings, resolved: RunSettings, folder: RunFolder, config: Path) -> None:
    """Write run.toml and probes.jsonl, or check that those there belong to the same run."""
    from sftscope.llm.label_collisions import collision_warning
    from sftscope.llm.loading import device_name, model_name, resolve_device, templated_tokenizer, versions
    from sftscope.llm.prompts import resolve_template, template_hash
    from sftscope.scoring.masking import probe_targets, states_of
    from sftscope.training.data.labels import find_collisions
    from sftscope.training.data.sources import content_hash, source_of

    asked = resolved.probes
    probes = read_probes(Path(asked.file), n_words=asked.n_words, seed=asked.seed, variables=asked.variables)
    for probe in probes:
        states_of(probe, settings.extraction.masked_states, settings.extraction.seed)  # where there is a way to
    tokenizer = templated_tokenizer(resolved.model)
    template = resolve_template(tokenizer, resolved.model.template)
    rows = write_probes(probes, probe_targets(probes, tokenizer, template, resolved.extraction.target))
    collisions = find_collisions(resolved, [probe.response for probe in probes], tokenizer)
    hashes = {
        "train": content_hash(source_of(resolved.data, "train")),
        "eval": content_hash(source_of(resolved.data, "eval")),
        "labels": _file_hash(resolved.data.labels),
        "probes": hashlib.sha256(rows.encode()).hexdigest(),
        "template": template_hash(tokenizer, template),
        "model": _model_hash(Path(resolved.model.path)),
    }
    identity = _identity(settings, hashes)
    if line := collision_warning(collisions):
        say(f"warning: {line}")
    planned = {folder.probes_file: rows.encode()}
    ownership.refuse_others_files(folder, planned, identity)
    if folder.exists():
        _check_same(folder, settings, hashes, identity, config)
        _write_planned(planned)
        return
    folder.write_run(
        {
            "format": RUN_FORMAT,
            "identity": identity,
            "name": config.stem if config.stem != "config" else config.absolute().parent.name,
            "model": {"name": model_name(resolved.model.path), "template": template},
            "device": device_name(resolve_device(resolved.model.device)),
            "source": {
                "config": config.name,
                "config_folder": os.path.relpath(config.absolute().parent, folder.path.absolute()),
            },
            "hashes": hashes,
            **({"collisions": collisions} if collisions else {}),
            "versions": versions(),
            "settings": settings.as_dict(),
        }
    )
    _write_planned(planned)


def _write_planned(planned: Mapping[Path, bytes]) -> None:
    """Write the files that a run begins with, after run.toml: what lies next to one is the run's."""
    for path, content in planned.items():
        try:
            if read_plain(path) == content:
                continue
        except (OSError, SftscopeError):
            pass
        write_atomically(path, content)


def begin_attached(
    tables: Mapping[str, Any], out: Path, attached: Mapping[str, Any], probes_file: Path, *, template: str = ""
) -> None:
    """Begin the run folder `out` for checkpoints that others wrote, or check that the one there belongs to them.

    tables: the settings, without data and training; their paths are absolute or relative to `out`. attached: what
    is known of the training, for readers of run.toml. template: the chat template of the training, where it is not the
    base model's own; kept in the run.
    """
    from sftscope.llm.loading import device_name, model_name, resolve_device, templated_tokenizer, versions
    from sftscope.llm.prompts import resolve_template, set_template, template_hash
    from sftscope.scoring.masking import probe_targets, states_of

    folder = RunFolder(out)
    settings = settings_from_tables(tables, trained_here=False)
    resolved = resolve_paths(replace(settings, probes=replace(settings.probes, file=str(probes_file.absolute()))), out)
    asked = resolved.probes
    probes = read_probes(probes_file, n_words=asked.n_words, seed=asked.seed, variables=asked.variables)
    for probe in probes:
        states_of(probe, settings.extraction.masked_states, settings.extraction.seed)  # where there is a way to
    if template:
        tokenizer = templated_tokenizer(replace(resolved.model, system=""))
        set_template(tokenizer, template, resolved.model.system)
        settings = replace(settings, model=replace(settings.model, template_file=folder.template_file.name))
    else:
        tokenizer = templated_tokenizer(resolved.model)
    kind = resolve_template(tokenizer, resolved.model.template)
    rows = write_probes(probes, probe_targets(probes, tokenizer, kind, resolved.extraction.target))
    hashes = {
        "probes": hashlib.sha256(rows.encode()).hexdigest(),
        "template": template_hash(tokenizer, kind),
        "model": _model_hash(Path(resolved.model.path)),
    }
    identity = _identity(settings, hashes)
    planned = {folder.probes_file: rows.encode()}
    if template:
        planned[folder.template_file] = template.encode()
    ownership.refuse_others_files(folder, planned, identity)
    if folder.exists():
        _check_same(folder, settings, hashes, identity, out)
        _write_planned(planned)
        return
    kept = {table: values for table, values in settings.as_dict().items() if table not in ("data", "training")}
    folder.write_run(
        {
            "format": RUN_FORMAT,
            "identity": identity,
            "name": out.absolute().name,
            "model": {"name": model_name(resolved.model.path), "template": kind},
            "device": device_name(resolve_device(resolved.model.device)),
            "source": {"config_folder": "."},
            "attached": dict(attached),
            "hashes": hashes,
            "versions": versions(),
            "settings": kept,
        }
    )
    _write_planned(planned)


def settings_in(content: Mapping[str, Any], **where: Callable[[str, str | None], str]) -> RunSettings:
    """The settings in a run.toml; an attached run has none of data and training."""
    return settings_from_tables(content["settings"], trained_here="attached" not in content, **where)


def identity_fits(content: dict[str, Any]) -> bool:
    """Whether the identity in a run.toml is that of its settings and hashes.

    Earlier releases counted settings that are free now: any of them may have been.
    """
    try:
        settings, hashes = settings_in(content), content["hashes"]
        choices = itertools.chain.from_iterable(itertools.combinations(_FREE, k) for k in range(len(_FREE) + 1))
        return any(_identity(settings, hashes, frozenset(free)) == content["identity"] for free in choices)
    except (SftscopeError, KeyError, TypeError, AttributeError):
        return False


def _identity(settings: RunSettings, hashes: dict[str, str], free: Collection[tuple[str, str]] = _FREE) -> str:
    """Hash of everything that results depend on. Paths do not count, what they hold does.

    A setting at its default does not count either, so that a run stays what it is when sftscope
    learns a new setting.
    """
    bound = {
        table: {key: value for key, value in values.items() if (table, key) not in free and key not in hashes}
        for table, values in settings.changed().items()
    }
    return hashlib.sha256(json.dumps([bound, hashes], sort_keys=True).encode()).hexdigest()


def _identity_before(content: Mapping[str, Any]) -> str | None:
    """The identity that the present rules give to what run.toml holds; None where that makes no sense."""
    try:
        return _identity(settings_in(content), content["hashes"])
    except (SftscopeError, KeyError, TypeError, AttributeError):
        return None


def _check_same(folder: RunFolder, settings: RunSettings, hashes: dict[str, str], identity: str, config: Path) -> None:
    content: dict[str, Any] = folder.read_run()
    if content.get("identity") == identity:
        return
    before, hashed = content.get("settings", {}), content.get("hashes", {})
    if _identity_before(content) == identity:
        return  # begun by a release that counted a setting which is free now
    for table, values in settings.as_dict().items():
        if table not in before:
            continue  # of a run that others trained nothing is known of data and training
        for key, value in values.items():
            old = before.get(table, {}).get(key)
            held = key in hashes and hashes[key] == hashed.get(key)  # another path to the same content
            if old != value and not held and (table, key) not in _FREE:
                raise SftscopeError(
                    f"{title(config)}: [{table}] {key} is {value!r}, but {folder.path} was begun with {old!r}; "
                    "use another --out folder, or the setting it was begun with"
                )
    for name, value in hashes.items():
        if hashed.get(name) != value:
            raise SftscopeError(
                f"{folder.path}: was begun with another {name} (its content changed); use another --out"
            )
    raise SftscopeError(f"{folder.run_file}: belongs to another run; use another --out folder")


def _file_hash(path: str) -> str:
    if not path:
        return ""
    try:
        return file_sha256(Path(path))
    except OSError as error:
        raise SftscopeError(f"{path}: cannot be read: {error.strerror}") from None


def _model_hash(path: Path) -> str:
    """sha256 of a model's weight files, name after name; a hub name stands for itself."""
    if not path.exists():
        return str(path)
    files = [path] if path.is_file() else sorted([*path.glob("*.safetensors"), *path.glob("*.gguf")])
    return hashlib.sha256("".join(f"{file.name} {_file_hash(str(file))}\n" for file in files).encode()).hexdigest()
