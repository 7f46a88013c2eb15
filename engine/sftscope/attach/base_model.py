"""Whether checkpoints belong to the base model that is given, and how they were prompted in training."""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from sftscope.attach.foreign_checkpoints import adapter_base, adapter_revision, is_adapter
from sftscope.files.hashes import file_sha256
from sftscope.files.opening import is_plain, read_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.hub import is_hub_name
from sftscope.llm.weights.untrusted_weights import refuse_adapter_as_base
from sftscope.store.checkpoints import Checkpoint

_ANY_DAY = "2000-01-01"


def refuse_another_base(checkpoint: Checkpoint, base: str, *, trusted: bool) -> None:
    """SftscopeError where an adapter names another base model; shapes alone do not tell two of a family apart.

    base: hub name or path. Its last part counts, since the folders before it differ from machine to machine; where
    that differs, or both are at hand, equal weights do. trusted: the user knows better.
    """
    named = adapter_base(checkpoint)
    if named and not trusted and Path(named).is_dir():
        refuse_adapter_as_base(Path(named))  # the training began with that one too
    if trusted or not named:
        return
    if _plain_name(named) in _names(base) and not _are_other_folders(named, base):
        return
    if _same_weights(named, base):
        return
    raise SftscopeError(
        f"{checkpoint.path}: the adapter is of the base model {safe_text(named, max_length=200)}, --model is "
        f"{safe_text(base, max_length=200)}; give that base, or --same-base if both are the same model"
    )


def remark_on_base(checkpoint: Checkpoint, base: str) -> str:
    """What is taken on trust of an adapter's base: another owner of the same name, or a revision. Empty: nothing."""
    named, revision = adapter_base(checkpoint), adapter_revision(checkpoint)
    if is_hub_name(named) and is_hub_name(base) and named != base:
        return f"the adapters name the base model {safe_text(named, max_length=200)}; {base} is taken for the same"
    if revision not in ("", "main"):
        shown = safe_text(revision, max_length=80)
        return f"the adapters name revision {shown} of their base model; which one {base} is, is not checked"
    return ""


def base_of(checkpoint: Checkpoint) -> str:
    """The base model that an adapter names: a folder or file that is there, or a name of the hub.

    SftscopeError where it names none, where that is a path of another machine, and for a whole model, which names none.
    """
    named = adapter_base(checkpoint)
    if named and (Path(named).exists() or is_hub_name(named)):
        return named
    if not is_adapter(checkpoint.path):
        raise SftscopeError(
            f"{checkpoint.path}: holds a whole model, which does not name its base; give the base model: --model BASE"
        )
    reason = f"names the base {safe_text(named, max_length=200)}, which is not there" if named else "names no base"
    raise SftscopeError(f"{checkpoint.path}: its adapter {reason}; give the base model: --model BASE")


def training_template(
    trained: Any, base: str, messages: tuple[str, ...], *, asked: str = "auto", given: str = ""
) -> str:
    """The chat template of a training where it is not the base model's own; else empty.

    trained: the tokenizer of the training, None where it is not known. asked: auto, chat or plain, as [model] template.
    given: the text of a template in place of both. SftscopeError where the training's tokenizer makes other tokens of
    the probes (`messages`) than that of the base model.
    """
    from sftscope.llm.loading import load_tokenizer
    from sftscope.llm.prompting.prompts import resolve_template
    from sftscope.llm.prompting.template_date import freeze_date

    if trained is None:
        return given
    own, trained = load_tokenizer(base), deepcopy(trained)
    for each in (own, trained):
        freeze_date(each, _ANY_DAY)  # midnight between two renderings is no difference of tokenizers
    template = given or str(trained.chat_template or "")
    other = bool(template) and template != own.chat_template
    trained.chat_template = own.chat_template = template or own.chat_template
    if not _same_tokens(trained, own, messages, asked) and not added_tokens(trained, own):
        raise SftscopeError(
            f"{base}: its tokenizer makes other tokens of the probes than that of the training; "
            "give the base model that this training began with"
        )
    return template if other and resolve_template(own, asked) == "chat" else ""


def _are_other_folders(named: str, base: str) -> bool:
    """Whether both are folders with safetensors here, in two places: their weights then count, not their names."""
    one, other = Path(named), Path(base)
    try:
        return bool(_tensors_in(one) and _tensors_in(other)) and not one.samefile(other)
    except OSError:
        return False


def _tensors_in(folder: Path) -> list[Path]:
    return list(folder.glob("*.safetensors")) if folder.is_dir() else []


def _same_tokens(trained: Any, own: Any, messages: Sequence[str], asked: str = "auto") -> bool:
    """Whether two tokenizers make the same tokens of the messages, in the chat template of the training."""
    from sftscope.llm.prompting.prompts import resolve_template, tokenize_prompt
    from sftscope.llm.prompting.template_date import freeze_date

    own, trained = deepcopy(own), deepcopy(trained)
    for each in (own, trained):
        freeze_date(each, _ANY_DAY)
    own.chat_template = trained.chat_template = str(trained.chat_template or "") or own.chat_template
    kind = resolve_template(own, asked)
    pairs = ([tokenize_prompt(each, message, kind).ids for each in (trained, own)] for message in messages)
    return all(ours == theirs for ours, theirs in pairs)


def added_tokens(trained: Any, own: Any) -> set[str]:
    """The tokens that a training added to those of its base; none where it changed any of them."""
    before, after = own.get_vocab(), trained.get_vocab()
    return set(after) - set(before) if all(after.get(token) == place for token, place in before.items()) else set()


def keep_added_tokens(trained: Any, base: str, folder: Path, messages: Sequence[str], probes: Path) -> bool:
    """Write the tokenizer of a training into `folder` if it added tokens, and prompts or answers are others by it.

    probes: the file of the messages, where the answers stand.
    """
    from sftscope.llm.loading import load_tokenizer

    if trained is None:
        return False
    own = load_tokenizer(base)
    added, text = added_tokens(trained, own), read_plain(probes).decode(errors="replace")
    if not added or (_same_tokens(trained, own, messages) and not any(token in text for token in added)):
        return False
    shown = safe_text(", ".join(sorted(added)[:4]), max_length=120)
    say(f"the training added {len(added)} tokens ({shown}): its tokenizer is used, and kept in the run")
    trained.save_pretrained(folder)
    return True


def _names(base: str) -> set[str]:
    """What an adapter may call a base: its name; of a GGUF file also its folder, which transformers keeps instead."""
    folder = {_plain_name(str(Path(base).absolute().parent))} if base.endswith(".gguf") else set()
    return {_plain_name(base), *folder}


def _plain_name(path: str) -> str:
    """The last part of a path or hub name; of a file of the hub's cache the name of its repository."""
    parts = [part for part in path.replace("\\", "/").split("/") if part]
    for part in parts:
        if part.startswith("models--"):
            return part.rpartition("--")[2].lower()
    return parts[-1].lower() if parts else ""


def _same_weights(named: str, base: str) -> bool:
    """Whether two folders or files hold the same weights, byte for byte."""
    sizes = [_weights_sizes(Path(path)) for path in (base, named)]
    if not sizes[0] or sizes[0] != sizes[1]:  # an adapter may name any file: what is hashed is as large as the base
        return False
    hashes = [_weights_hash(Path(path)) for path in (named, base)]
    return bool(hashes[0]) and hashes[0] == hashes[1]


def _weights_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted([*path.glob("*.safetensors"), *path.glob("*.gguf")])


def _weights_sizes(path: Path) -> list[int]:
    """Sizes of the weight files; empty where there are none, or one is no regular file."""
    try:
        files = _weights_files(path)
        return [file.stat().st_size for file in files] if all(map(is_plain, files)) else []
    except OSError:
        return []


def _weights_hash(path: Path) -> str:
    try:
        files = _weights_files(path)
        digest = hashlib.sha256()
        for file in files:
            digest.update(bytes.fromhex(file_sha256(file)))
    except (OSError, SftscopeError):
        return ""
    return digest.hexdigest() if files else ""
