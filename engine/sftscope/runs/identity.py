"""What the results of a run depend on: its settings, and the content of data, template, model and probes.

One hash of all of it is the run's identity. Work that belongs to another identity is refused.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from sftscope.files.hashes import file_sha256
from sftscope.files.opening import raise_if_not_read, read_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.presets import title
from sftscope.inputs.settings import RunSettings, settings_from_tables
from sftscope.runs.earlier import is_former_default
from sftscope.store import RunFolder

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


def identity_of(settings: RunSettings, hashes: Mapping[str, str]) -> str:
    """Hash of everything that results depend on. Paths do not count, what they hold does.

    A setting at its default, now or in an earlier release, does not count either, so that a run stays what it is when
    sftscope learns a new setting or a better default; what the run was begun with is in its run.toml.
    """
    bound = {
        table: {
            key: value
            for key, value in values.items()
            if (table, key) not in _FREE and key not in hashes and not is_former_default(table, key, value)
        }
        for table, values in settings.changed().items()
    }
    return hashlib.sha256(json.dumps([bound, dict(hashes)], sort_keys=True).encode()).hexdigest()


def identity_fits(content: Mapping[str, Any]) -> bool:
    """Whether the identity in a run.toml is that of its settings and hashes."""
    try:
        return identity_of(settings_in(content), content["hashes"]) == content["identity"]
    except (SftscopeError, KeyError, TypeError, AttributeError):
        return False


def settings_in(content: Mapping[str, Any], **where: Callable[[str, str | None], str]) -> RunSettings:
    """The settings in a run.toml; an attached run has none of data and training."""
    return settings_from_tables(content["settings"], trained_here="attached" not in content, **where)


def dated(settings: RunSettings, day: str) -> RunSettings:
    """The settings with `day` (YYYY-MM-DD) as the date that a chat template writes."""
    return replace(settings, model=replace(settings.model, template_date=day))


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


def check_same(folder: RunFolder, settings: RunSettings, hashes: Mapping[str, str], config: Path) -> None:
    """Refuse to continue a folder that was begun with something else, and name the first difference."""
    content: dict[str, Any] = folder.read_run()
    if content.get("identity") == identity_of(settings, hashes):
        return
    before, hashed = settings_in(content).as_dict(), content.get("hashes", {})  # a setting that is newer: its default
    changed = settings.changed()
    for table, values in settings.as_dict().items():
        if table not in content["settings"]:
            continue  # of a run that others trained nothing is known of data and training
        for key, value in values.items():
            old = before[table][key]
            held = key in hashes and hashes[key] == hashed.get(key)  # another path to the same content
            former = is_former_default(table, key, old) and key not in changed[table]  # a default then and now
            if old != value and not held and not former and (table, key) not in _FREE:
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


def file_hash(path: str) -> str:
    if not path:
        return ""
    try:
        return file_sha256(Path(path))
    except OSError as error:
        raise SftscopeError(f"{path}: cannot be read: {error.strerror}") from None


def model_hash(path: Path) -> str:
    """sha256 of a model's weight files, name after name; a hub name stands for itself."""
    if not path.exists():
        return str(path)
    files = [path] if path.is_file() else sorted([*path.glob("*.safetensors"), *path.glob("*.gguf")])
    return hashlib.sha256("".join(f"{file.name} {file_hash(str(file))}\n" for file in files).encode()).hexdigest()
