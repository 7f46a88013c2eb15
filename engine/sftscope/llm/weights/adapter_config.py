"""What an adapter is, by its `adapter_config.json` and the header of its weights: read before any library sees them.

The tensors say which modules have LoRA and of which rank. The config must say the same; what in it would run (regular
expressions, named modules), build (ranks, layers) or change the base is never handed on. Knows no PyTorch.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftscope.files.json_text import number, read_json_object
from sftscope.files.safetensors_header import TensorEntry, read_header
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.weights.key_names import without_wrappers

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
_MAX_CONFIG_BYTES = 2**22
_MOST_TOKENS = 2**20
_MOST_NAMES, _MOST_PATTERNS, _LONGEST_NAME = 20_000, 5_000, 300
# PEFT initialisations that leave the base model as it is; all others subtract something from it
_PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal", "mica")
# fields without a part in what an adapter computes; those of an initialisation are covered by `_PLAIN_INITS`
_IGNORED = frozenset(
    """auto_mapping base_model_name_or_path eva_config inference_mode loftq_config lora_dropout megatron_core peft_type
    peft_version qalora_group_size revision runtime_config task_type""".split()  # noqa: SIM905
)
_USED = frozenset(
    """alpha_pattern bias exclude_modules fan_in_fan_out init_lora_weights layers_pattern layers_to_transform lora_alpha
    lora_bias modules_to_save r rank_pattern target_modules trainable_token_indices use_dora use_rslora""".split()  # noqa: SIM905
)
_TENSOR = re.compile(rf"{re.escape(PREFIX)}(.+)\.(lora_A\.weight|lora_embedding_A)")
_TOKENS = re.compile(rf"{re.escape(PREFIX)}([\w.]+?)(\.token_adapter)?\.trainable_tokens_delta", re.ASCII)
_PLAIN_NAME = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter whose config and weights agree.

    ranks, alphas: of each module that has LoRA, by its name in the base model. targets: how the config names these
    modules where it does so by a list of names, else None. modules: those whose weights were trained themselves.
    tokens: rows of embeddings that were trained themselves, by the name of the module in the base model.
    """

    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    r: int
    alpha: float
    targets: tuple[str, ...] | None
    excluded: tuple[str, ...]
    layers: frozenset[int] | None
    layer_names: tuple[str, ...]
    every_linear: bool
    modules: tuple[str, ...]
    flags: Mapping[str, bool]
    tokens: Mapping[str, tuple[int, ...]]
    tensors: Mapping[str, TensorEntry] = field(compare=False, repr=False)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What must be equal in all steps of a training: what the adapter computes with, not how its config says it.

        `fan_in_fan_out` is no part of it: PEFT sets it by the kind of each layer.
        """
        scaling = sorted((name, rank, self.alphas[name]) for name, rank in self.ranks.items())
        flags = sorted((name, on) for name, on in self.flags.items() if name != "fan_in_fan_out")
        tokens = (sorted(self.tokens.items()),) if self.tokens else ()
        return scaling, self.modules, flags, *tokens

    def selects(self, name: str) -> bool:
        """Whether the config's list of names means the module `name`, as PEFT reads such a list."""
        if self.targets is None or self.saves(name):
            return False
        if not _ends_with(name, self._target_set) or _ends_with(name, frozenset(self.excluded)):
            return False
        return self.layers is None or name in self._target_set or _layer_of(name, self.layer_names) in self.layers

    def saves(self, name: str) -> bool:
        """Whether the module `name` is one whose weights were trained themselves, or a part of one."""
        return any(_is_within(name, module) for module in self.modules)

    @property
    def _target_set(self) -> frozenset[str]:
        return frozenset(self.targets or ())


def read_adapter(folder: Path) -> Adapter:
    """The adapter in a folder. SftscopeError names the file and the field that it cannot be read with."""
    path = folder / CONFIG
    try:
        config = read_json_object(path, _MAX_CONFIG_BYTES)
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such file; expected a PEFT adapter folder") from None
    except OSError as error:
        raise SftscopeError(f"{path}: cannot be read: {error.strerror}") from None
    check_kind(config, path)
    _check_fields(config, path)
    try:
        tensors = without_wrappers(read_header(folder / WEIGHTS), folder / WEIGHTS)
    except FileNotFoundError:
        raise SftscopeError(f"{folder / WEIGHTS}: no such file; only safetensors adapters are read") from None
    except OSError as error:
        raise SftscopeError(f"{folder / WEIGHTS}: cannot be read: {error.strerror}") from None
    return _adapter(_Fields(config, path), tensors, folder)


def check_kind(config: Mapping[str, Any], path: Path) -> None:
    """SftscopeError for an adapter that is no LoRA, or is relative to a base that its training changed."""
    kind, init = config.get("peft_type"), config.get("init_lora_weights", True)
    if kind != "LORA":
        raise SftscopeError(f"{path}: field 'peft_type': expected LORA, got {_shown(kind)}")
    if init not in _PLAIN_INITS or config.get("corda_config") or config.get("lora_ga_config"):
        raise SftscopeError(
            f"{path}: the adapter was begun by {safe_text(str(init), max_length=60)}, which changes the base model "
            "under it; convert it to plain LoRA first (save_pretrained with path_initial_model_for_weight_conversion)"
        )


def _check_fields(config: Mapping[str, Any], path: Path) -> None:
    """SftscopeError for a field that changes what the adapter computes in a way that is not supported."""
    for name, value in config.items():
        if name in _IGNORED or name in _USED or not value or _is_default(name, value):
            continue
        raise SftscopeError(
            f"{path}: field {safe_text(repr(name), max_length=60)}: not supported, got {_shown(value)}; expected a "
            "plain LoRA, rsLoRA or DoRA adapter"
        )
    if config.get("bias", "none") != "none":
        raise SftscopeError(f"{path}: field 'bias': expected 'none', got {_shown(config['bias'])}; not supported")


def _is_default(name: str, value: Any) -> bool:
    """Whether a field has the value that the installed PEFT gives to it anyway, which a saved config repeats."""
    from dataclasses import MISSING, fields

    from peft import LoraConfig

    for known in fields(LoraConfig):
        if known.name == name:
            default = known.default_factory() if known.default_factory is not MISSING else known.default
            return bool(type(default) is type(value) and default == value)
    return False


class _Fields:
    """The fields of a config as checked values; SftscopeError names the one that is wrong."""

    def __init__(self, config: Mapping[str, Any], path: Path) -> None:
        self._config, self._path = config, path

    def wrong(self, name: str, expected: str) -> SftscopeError:
        got = _shown(self._config.get(name))
        return SftscopeError(f"{self._path}: field {name!r}: expected {expected}, got {got}")

    def flag(self, name: str) -> bool:
        value = self._config.get(name) or False
        if type(value) is not bool:
            raise self.wrong(name, "true or false")
        return value

    def positive(self, name: str, default: float) -> float:
        value = number(self._config.get(name, default))
        if value is None or not 0 < value < 1e9:
            raise self.wrong(name, "a number above 0")
        return value

    def names(self, name: str) -> tuple[str, ...]:
        """A list of module names, or one; empty for null."""
        value = self._config.get(name) or []
        names = [value] if isinstance(value, str) else value
        fits = isinstance(names, list) and len(names) <= _MOST_NAMES
        if not fits or not all(isinstance(each, str) and _is_plain(each) for each in names):
            raise self.wrong(name, "names of modules")
        return tuple(sorted(names))

    def targets(self, name: str) -> tuple[str, ...] | None:
        """As `names`, but None for text, which PEFT takes for a regular expression, and for null."""
        return None if isinstance(self._config.get(name), str | None) else self.names(name)

    def token_rows(self, name: str, modules: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Rows by module: a list holds for every module, an object names modules by the ends of their names."""
        given = self._config.get(name)
        if given and not modules:
            raise self.wrong(name, "none, as its weights have none")
        found = {}
        for module in modules:
            rows: Any = given
            if isinstance(given, dict):
                ends = [key for key in given if _ends_with(module, frozenset([key]))]
                # a head that is tied to the embeddings has their tokens
                rows = given[ends[0]] if ends else next(iter(given.values()), None)
            fits = isinstance(rows, list) and len(rows) <= _MOST_TOKENS and all(type(row) is int for row in rows)
            if not fits or len(set(rows)) < len(rows) or min(rows, default=0) < 0:
                raise self.wrong(name, "ids of tokens, each once, or an object of them by module names")
            found[module] = tuple(rows)
        return found

    def says(self, name: str, value: str) -> bool:
        return self._config.get(name) == value

    def is_text(self, name: str) -> bool:
        return isinstance(self._config.get(name), str)

    def layers(self, name: str) -> frozenset[int] | None:
        value = self._config.get(name)
        layers = [value] if type(value) is int else value
        if not isinstance(layers, list | None) or not all(type(each) is int for each in layers or ()):
            raise self.wrong(name, "numbers of layers")
        return frozenset(layers) if layers else None

    def patterns(self, name: str) -> dict[re.Pattern[str], float]:
        """Values by the module names that they hold for."""
        given = self._config.get(name) or {}
        if not isinstance(given, dict) or len(given) > _MOST_PATTERNS:
            raise self.wrong(name, "an object of numbers by module names")
        found = {}
        for key, value in given.items():
            size = number(value)
            if size is None or not 0 < size < 1e9:
                raise self.wrong(name, "numbers above 0")
            found[self._pattern(name, key)] = size
        return found

    def _pattern(self, name: str, key: str) -> re.Pattern[str]:
        """PEFT's own reading of such a key; refused where its search could take more than a moment."""
        if not _is_harmless(key):
            raise self.wrong(name, "names of modules, or simple patterns of them, as keys")
        try:
            return re.compile(rf"(.*\.)?({key})$")
        except re.error:
            raise self.wrong(name, "names of modules as keys") from None


def _adapter(fields: _Fields, tensors: Mapping[str, TensorEntry], folder: Path) -> Adapter:
    names = dict(_lora_modules(tensors))
    if not names:
        raise SftscopeError(
            f"{folder / WEIGHTS}: holds no LoRA weights; expected tensors such as {PREFIX}….lora_A.weight"
        )
    r, alpha = fields.positive("r", 8), fields.positive("lora_alpha", 8)
    rank_of, alpha_of = fields.patterns("rank_pattern"), fields.patterns("alpha_pattern")
    for name, rank in names.items():
        if (said := _value_for(name, rank_of, r)) != rank:
            raise SftscopeError(
                f"{folder / CONFIG}: fields 'r' and 'rank_pattern': rank {said:g} for "
                f"{safe_text(name, max_length=120)}, its weights have rank {rank}; "
                "the config is not that of these weights"
            )
    targets = fields.targets("target_modules")
    excluded, layers = fields.targets("exclude_modules") or (), fields.layers("layers_to_transform")
    return Adapter(
        ranks=names,
        alphas={name: _value_for(name, alpha_of, alpha) for name in names},
        r=int(r) if r in names.values() else max(names.values()),
        alpha=alpha,
        targets=None if fields.is_text("exclude_modules") else targets,
        excluded=excluded,
        layers=layers,
        layer_names=fields.names("layers_pattern"),
        every_linear=fields.says("target_modules", "all-linear"),
        modules=fields.names("modules_to_save"),
        flags={name: fields.flag(name) for name in ("use_rslora", "use_dora", "lora_bias", "fan_in_fan_out")},
        tokens=_token_rows(fields, tensors),
        tensors=tensors,
    )


def _token_rows(fields: _Fields, tensors: Mapping[str, TensorEntry]) -> dict[str, tuple[int, ...]]:
    """Which rows the trained tokens of each embedding are; SftscopeError where config and weights differ."""
    found = {match[1]: entry.shape for key, entry in tensors.items() if (match := _TOKENS.fullmatch(key))}
    rows = fields.token_rows("trainable_token_indices", found)
    for name, shape in found.items():
        if len(shape) != 2 or shape[0] != len(rows[name]):
            raise fields.wrong("trainable_token_indices", f"as many tokens as its weights, {tuple(shape)}")
    return rows


def _lora_modules(tensors: Mapping[str, TensorEntry]) -> Iterator[tuple[str, int]]:
    """(module, rank) of each LoRA in the weights."""
    for key, entry in tensors.items():
        match = _TENSOR.fullmatch(key)
        if match and len(match[1]) <= _LONGEST_NAME and entry.shape and entry.shape[0]:
            yield match[1], entry.shape[0]


def _value_for(name: str, patterns: Mapping[re.Pattern[str], float], otherwise: float) -> float:
    return next((value for pattern, value in patterns.items() if pattern.match(name)), otherwise)


def _is_plain(name: str) -> bool:
    return len(name) <= _LONGEST_NAME and _PLAIN_NAME.fullmatch(name) is not None


def _is_harmless(pattern: str) -> bool:
    """Whether a search for `pattern` in a module's name ends soon: a name, or one with at most two repetitions.

    No repetition of a group, which can take time exponential in the name, no look-around and no back reference.
    """
    if len(pattern) > _LONGEST_NAME:
        return False
    repeats = len(re.findall(r"(?<!\\)[*+?{]", pattern.replace("(?:", "(")))
    return repeats <= 2 and not re.search(r"\)[*+?{]|\(\?(?!:)|\\\d", pattern)


def _ends_with(name: str, endings: frozenset[str]) -> bool:
    """Whether `name`, or its last parts, are among `endings`."""
    if not endings:
        return False
    parts = name.split(".")
    return any(".".join(parts[start:]) in endings for start in range(len(parts)))


def _is_within(name: str, module: str) -> bool:
    """Whether the module `name` is one that is called `module`, or a part of it."""
    return f".{module}." in f".{name}."


def _layer_of(name: str, layer_names: tuple[str, ...]) -> int | None:
    """The number of the layer that a module is in: the first one in its name, or the one after a layers' name."""
    parts = name.split(".")
    for place in range(1, len(parts) - 1):
        before = ".".join(parts[:place])
        if parts[place].isdecimal() and (
            place > 1 if not layer_names else any(_ends_with(before, frozenset([each])) for each in layer_names)
        ):
            return int(parts[place])
    return None


def _shown(value: Any) -> str:
    return safe_text(repr(value), max_length=60)
