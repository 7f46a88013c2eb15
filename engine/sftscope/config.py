"""The settings of a run: TOML in, checked dataclasses out; every field carries its line of help.

Knows the names, types and ranges of settings, not what they do. Paths are resolved against the
folder of the config file; an unknown field, a wrong type or a value out of range is one line with
file, line and what was expected.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin

from sftscope.config_paths import resolve_paths as resolve_paths
from sftscope.errors import SftscopeError
from sftscope.text import safe_text

MAX_SEED = 2**32 - 1  # what numpy takes
DEFAULT_CHECKPOINTS = (0, 1, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def _setting(help_: str, default: Any = MISSING, **rules: Any) -> Any:
    """A dataclass field with its line of help and its rules.

    Rules: `choices`, `at_least`, `above`, `at_most`, `pattern` (with `form`, the same in words), and
    `path`: "file", "or-name" (a path or a name of the hub), or "data" (also the name of an entry of `dataset_info`).
    """
    return field(default=default, metadata={"help": help_, **rules})


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    path: str = _setting("hub name, local folder, or GGUF file of the base LLM", path="or-name")
    dtype: str = _setting(
        "precision of the base weights in training",
        "float32",
        choices=("float32", "bfloat16", "float16"),
    )
    device: str = _setting(
        "auto, cpu, cuda or cuda:N", "auto", pattern=r"auto|cpu|cuda(:\d+)?", form="auto, cpu, cuda or cuda:N"
    )
    template: str = _setting(
        "auto (the tokenizer's chat template, plain if it has none), chat or plain",
        "auto",
        choices=("auto", "chat", "plain"),
    )
    template_file: str = _setting("Jinja chat template that replaces the tokenizer's own", "", path="file")
    system: str = _setting("system prompt of rows and probes without one of their own", "")
    quantization: str = _setting(
        "base weights in 8 or 4 bits, by bitsandbytes: int8 or nf4", "none", choices=("none", "int8", "nf4")
    )


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    train: str = _setting(
        "training rows: JSONL, JSON, CSV, TSV or Parquet file, hub name or a folder laid out like one, "
        "or the name of an entry of dataset_info",
        path="data",
    )
    eval: str = _setting("held-out rows, in the same forms as train; empty: no eval loss", "", path="data")
    dataset_info: str = _setting("LLaMA-Factory's dataset_info.json: train and eval are names in it", "", path="file")
    subset: str = _setting("subset of a hub data set", "")
    train_split: str = _setting("split of a hub data set to train on; slices work: train[:14000]", "train")
    eval_split: str = _setting("split of a hub data set that is held out", "validation")
    format: str = _setting(
        "shape of the rows",
        "auto",
        choices=("auto", "alpaca", "prompt-completion", "dolly", "sharegpt", "messages", "goemotions"),
    )
    answers: str = _setting(
        "which answers of a conversation are trained: all (each one a row, the turns before it its prompt) or last",
        "all",
        choices=("all", "last"),
    )
    instruction: str = _setting("instruction for rows that carry none (GoEmotions)", "")
    labels: str = _setting("label names, one per line (GoEmotions)", "", path="file")
    multi_label: str = _setting(
        "GoEmotions rows with several labels: join them, keep the first, or skip the row",
        "join",
        choices=("join", "first", "skip"),
    )
    max_train_rows: int = _setting("train on at most this many rows, by a seeded choice; 0: all", 0, at_least=0)
    max_eval_rows: int = _setting("evaluate at most this many held-out rows, by a seeded choice; 0: all", 0, at_least=0)
    seed: int = _setting("seed of the choice of rows", 0, at_least=0, at_most=MAX_SEED)


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    file: str = _setting("the probes, JSONL", path="file")
    n_words: int = _setting(
        "words per probe that become variables; above 16 set masked_states", 10, at_least=1, at_most=64
    )
    variables: str = _setting(
        "what a variable is if a probe names no spans: words, or up to n_words phrases (runs of words between stop "
        "words and punctuation) or sentences",
        "words",
        choices=("words", "phrases", "sentences"),
    )
    seed: int = _setting("seed of the choice of words", 0, at_least=0, at_most=MAX_SEED)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    epochs: float = _setting("length of the schedule in passes over the data", 30.0, above=0)
    max_steps: int = _setting("stop after this many steps; the schedule keeps its length; 0: all", 0, at_least=0)
    effective_batch_size: int = _setting("rows per optimisation step", 64, at_least=1)
    micro_batch_size: int = _setting("rows per forward pass; must divide the effective batch", 8, at_least=1)
    learning_rate: float = _setting("peak learning rate", 1e-4, above=0)
    schedule: str = _setting("learning-rate schedule", "cosine", choices=("cosine", "linear", "constant"))
    warmup_ratio: float = _setting("share of the schedule that warms up", 0.1, at_least=0, at_most=0.99)
    weight_decay: float = _setting("AdamW weight decay", 0.0, at_least=0)
    max_grad_norm: float = _setting("gradient clip", 1.0, above=0)
    method: str = _setting(
        "lora, or full: every weight is trained, kept in float32 and computed in the dtype of the model",
        "lora",
        choices=("lora", "full"),
    )
    lora_rank: int = _setting("LoRA rank r, on all linear layers but the output head", 8, at_least=1)
    lora_alpha: float = _setting("LoRA alpha", 16.0, above=0)
    lora_dropout: float = _setting("LoRA dropout", 0.0, at_least=0, at_most=0.99)
    use_rslora: bool = _setting("rank-stabilised LoRA: scaled by alpha / sqrt(r)", False)
    use_dora: bool = _setting("DoRA: magnitude and direction of the weights are adapted separately", False)
    cutoff: int = _setting("tokens per example; the prompt is cut, the answer is kept", 8192, at_least=8)
    gradient_checkpointing: bool = _setting("recompute activations to save memory", False)
    checkpoints: tuple[int, ...] = _setting(
        "optimisation steps to keep; the last step is always kept", DEFAULT_CHECKPOINTS, at_least=0
    )
    patience: int = _setting(
        "stop after this many checkpoints without a lower eval loss; the schedule keeps its length; 0: never",
        0,
        at_least=0,
    )
    loss_rows: int = _setting("rows per set in the train and eval loss at a checkpoint; 0: all", 256, at_least=0)
    accuracy_rows: int = _setting(
        "held-out rows for the accuracy at every checkpoint (complete answer right, greedy decoding); 0: none",
        0,
        at_least=0,
    )
    seed: int = _setting("seed of the adapter and of the order of rows", 42, at_least=0, at_most=MAX_SEED)


@dataclass(frozen=True, kw_only=True)
class ExtractionSettings:
    target: str = _setting(
        "what is scored: first (content token of the response), all (its tokens), or token:<text> (that one token)",
        "first",
        pattern=r"first|all|token:(?s:.+)",
        form="first, all or token:<text>",
    )
    baseline_vector: str = _setting(
        "what masks a word: mean (over the vocabulary), zero, or token:<text> (the embedding of that one token)",
        "mean",
        pattern=r"mean|zero|token:(?s:.+)",
        form="mean, zero or token:<text>, such as token:<unk>",
    )
    dtype: str = _setting(
        "precision of scoring; a lower one adds noise that imitates removal and emergence, so it is measured first; "
        "auto takes a lower one only if the sets stay the same",
        "float32",
        choices=("float32", "auto", "tf32", "mixed", "bfloat16", "float16"),
    )
    zeta: float = _setting("noise bound as a share of |v(x_N) - v(x_∅)| at step 0", 0.02, at_least=0, at_most=0.5)
    tolerance: float = _setting("largest certified relative gap accepted", 1e-3, above=0, at_most=0.1)
    masked_states: int = _setting(
        "score at most this many sampled masked states per probe (results become estimates); 0: all",
        0,
        at_least=0,
        at_most=65536,
    )
    replicates: int = _setting("estimates from resampled masked states, for intervals", 10, at_least=0, at_most=100)
    check_states: int = _setting(
        "masked states per probe scored again without the tree, as a check and for the noise; --verify K overrides",
        8,
        at_least=0,
    )
    memory_gb: float = _setting("memory for keys and values while scoring", 4.0, above=0)
    seed: int = _setting("seed of the choice of checked states", 0, at_least=0, at_most=MAX_SEED)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Everything a run is made from; one attribute per table of the config file."""

    model: ModelSettings
    data: DataSettings
    probes: ProbeSettings
    training: TrainingSettings
    extraction: ExtractionSettings

    def as_dict(self) -> dict[str, Any]:
        """Plain tables for run.toml, in the order of the classes."""
        return {
            table: {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
            for table, values in asdict(self).items()
        }

    def changed(self) -> dict[str, dict[str, Any]]:
        """The settings that differ from their default."""
        return {
            table: {spec.name: plain[spec.name] for spec in fields(part) if getattr(part, spec.name) != spec.default}
            for table, plain in self.as_dict().items()
            for part in [getattr(self, table)]
        }


_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_TABLES: dict[str, type[Any]] = {
    "model": ModelSettings,
    "data": DataSettings,
    "probes": ProbeSettings,
    "training": TrainingSettings,
    "extraction": ExtractionSettings,
}


def load_settings(path: Path) -> RunSettings:
    """The settings in the TOML file at `path`, as written.

    SftscopeError with file and line where they do not fit. That every path exists is checked here;
    `resolve_paths` makes them absolute.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such config file; give the path of a TOML file") from None
    except OSError as error:
        raise SftscopeError(f"{path}: cannot be read: {error.strerror}; give the path of a TOML file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SftscopeError(f"{path}, line {line}: not valid UTF-8; save the file as UTF-8") from None
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or a number of thousands of digits
        raise SftscopeError(f"{path}: not valid TOML: {_shown(str(error))}") from None
    settings = settings_from_tables(tables, where=lambda table, key: f"{path}{_line_of(text, table, key)}")
    resolve_paths(settings, path.absolute().parent, source=str(path))
    return settings


def settings_from_tables(
    tables: Mapping[str, Any],
    *,
    where: Callable[[str, str | None], str] = lambda table, key: "settings",
    trained_here: bool = True,
) -> RunSettings:
    """Checked settings from parsed TOML; `where(table, key)` says where a setting stands.

    trained_here: false for a run that others trained, which has no data of its own.
    """
    for table in tables:
        if table not in _TABLES:
            raise SftscopeError(f"{where(table, None)}: unknown table [{_shown(table)}]{_hint(table, _TABLES)}")
    built: dict[str, Any] = {}
    for table, cls in _TABLES.items():
        if cls is DataSettings and not trained_here:
            built[table] = DataSettings(train="")
            continue
        given = tables.get(table, {})
        if not isinstance(given, dict):
            raise SftscopeError(f"{where(table, None)}: expected a table [{table}], got {_shown(repr(given))}")
        built[table] = _build(cls, table, given, where)
    settings = RunSettings(**built)
    training = settings.training
    if settings.model.quantization != "none" and training.method == "full":
        raise SftscopeError(
            f"{where('training', 'method')}: weights in {settings.model.quantization} cannot be trained themselves; "
            'use method = "lora", or quantization = "none"'
        )
    if training.patience and not settings.data.eval:
        raise SftscopeError(f"{where('training', 'patience')}: patience needs [data] eval = …, held-out rows; add it")
    if training.effective_batch_size % training.micro_batch_size:
        raise SftscopeError(
            f"{where('training', 'micro_batch_size')}: micro_batch_size {training.micro_batch_size} does not "
            f"divide effective_batch_size {training.effective_batch_size}; choose a divisor"
        )
    return settings


def _build(cls: type[Any], table: str, given: Mapping[str, Any], where: Callable[[str, str | None], str]) -> Any:
    known = {f.name: f for f in fields(cls)}
    for key in given:
        if key not in known:
            raise SftscopeError(
                f"{where(table, key)}: unknown field {_shown(repr(key))} in [{table}]{_hint(key, known)}"
            )
    values = {}
    for name, spec in known.items():
        if name in given:
            values[name] = _checked(given[name], spec, f"{where(table, name)}: [{table}] {name}")
            if spec.default is MISSING and values[name] == "":
                raise SftscopeError(
                    f"{where(table, name)}: [{table}] {name}: expected {spec.metadata['help']}, got nothing"
                )
        elif spec.default is MISSING:
            raise SftscopeError(f"{where(table, None)}: [{table}] needs {name} = … ({spec.metadata['help']}); add it")
    return cls(**values)


def _checked(value: Any, spec: Any, place: str) -> Any:
    kind = spec.type
    if get_origin(kind) is tuple:
        (item, _) = get_args(kind)
        if not isinstance(value, list):
            raise SftscopeError(f"{place}: expected a list, such as [0, 1, 2], got {_shown(repr(value))}")
        return tuple(_checked_scalar(entry, item, spec.metadata, place) for entry in value)
    return _checked_scalar(value, kind, spec.metadata, place)


def _checked_scalar(value: Any, kind: type[Any], rules: Mapping[str, Any], place: str) -> Any:
    shown = _shown(repr(value))
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise SftscopeError(f"{place}: expected {_KINDS[kind]}, got {shown}")
    if kind is float and not math.isfinite(value):
        raise SftscopeError(f"{place}: expected a finite number, got {shown}")
    if "choices" in rules and value not in rules["choices"]:
        raise SftscopeError(f"{place}: expected one of {', '.join(rules['choices'])}, got {shown}")
    if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        raise SftscopeError(f"{place}: expected {rules['form']}, got {shown}")
    if "at_least" in rules and not value >= rules["at_least"]:
        raise SftscopeError(f"{place}: expected at least {rules['at_least']}, got {shown}")
    if "above" in rules and not value > rules["above"]:
        raise SftscopeError(f"{place}: expected more than {rules['above']}, got {shown}")
    if "at_most" in rules and not value <= rules["at_most"]:
        raise SftscopeError(f"{place}: expected at most {rules['at_most']}, got {shown}")
    return value


def _line_of(text: str, table: str, key: str | None) -> str:
    """`, line N` of a table or key in TOML text, or nothing where a plain search does not find it."""
    current = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            current = header[1].strip("\"'")
            if key is None and current == table:
                return f", line {number}"
        elif key is not None and current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return f", line {number}"
    return ""


def _shown(text: str, max_length: int = 80) -> str:
    """Text of the config file, fit for an error message."""
    return safe_text(text, max_length=max_length)


def _hint(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
