"""The settings of a run: TOML in, checked frozen objects out; every field carries its line of help.

Knows the names, types and ranges of settings, not what they do. msgspec checks them; an unknown field, a wrong type
or a value out of range is one line with file, line and what was expected. Paths are resolved against the folder of
the config file.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import asdict, fields, replace

from sftscope.files.opening import read_plain
from sftscope.files.toml_text import MAX_TOML_BYTES, parse_toml
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.presets import preset_text, title
from sftscope.inputs.setting_overrides import apply_sets
from sftscope.inputs.setting_paths import resolve_paths as resolve_paths
from sftscope.inputs.setting_rules import LARGEST, default_of, hint, line_of, settings_of, shown

# without 1: with a warm-up the first step has learning rate 0, and its weights are those of step 0
DEFAULT_CHECKPOINTS = (0, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
TrainedEnd = Literal["token", "template"]
Where = Callable[[str, str | None], str]

File = Annotated[str, Meta(extra={"path": "file", "form": "the path of a file, in quotes"})]
Model = Annotated[str, Meta(min_length=1, extra={"path": "or-name", "form": "a path or a hub name, in quotes"})]
Data = Annotated[str, Meta(extra={"path": "data", "form": "a path or a name, in quotes"})]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]  # what numpy takes
Amount = Annotated[float, Meta(gt=0, le=LARGEST)]
Share = Annotated[float, Meta(ge=0, le=0.99)]
# `$` alone also matches before a newline at the end
Device = Annotated[
    str, Meta(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)(?!\n)$", extra={"form": "auto, cpu, cuda or cuda:N"})
]
Day = Annotated[
    str, Meta(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?(?!\n)$", extra={"form": "a date such as 2026-12-01"})
]
Target = Annotated[
    str,
    Meta(
        pattern=r"^(auto|first|word|first-k:[1-9][0-9]{0,2}|all|(token|span):[\s\S]+)(?!\n)$",
        extra={"form": "auto, first, word, first-k:<number>, all, span:<text> or token:<text>"},
    ),
]
Mask = Annotated[
    str,
    Meta(
        pattern=r"^(mean|zero|token:[\s\S]+)(?!\n)$",
        extra={"form": "mean, zero or token:<text>, such as token:<unk>"},
    ),
]


def says(help_: str, **rules: Any) -> Meta:
    """A field's line of help, and its rules as msgspec names them: ge, gt, le, lt, min_length."""
    return Meta(description=help_, **rules)


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the config file: its fields and nothing else."""


class ModelSettings(Table, frozen=True, kw_only=True):
    path: Annotated[Model, says("hub name, local folder, or GGUF file of the base LLM")]
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], says("precision of the base weights in training")] = (
        "float32"
    )
    device: Annotated[Device, says("where the model runs; auto: the GPU where there is one")] = "auto"
    template: Annotated[
        Literal["auto", "chat", "plain"],
        says("auto (the tokenizer's chat template, plain if it has none), chat or plain"),
    ] = "auto"
    template_file: Annotated[File, says("Jinja chat template that replaces the tokenizer's own")] = ""
    template_date: Annotated[
        Day, says("date (YYYY-MM-DD) that a chat template writes as today's; empty: the day on which the run begins")
    ] = ""
    tokenizer: Annotated[
        File,
        says("tokenizer.json of a training that added tokens, in place of the model's own; the files next to it too"),
    ] = ""
    system: Annotated[str, says("system prompt of rows and probes without one of their own")] = ""
    quantization: Annotated[
        Literal["none", "int8", "nf4"],
        says("base weights in 8 or 4 bits, by bitsandbytes: int8 or nf4"),
    ] = "none"


class DataSettings(Table, frozen=True, kw_only=True):
    train: Annotated[
        Data,
        says(
            "training rows: JSONL, JSON, CSV, TSV (also .gz) or Parquet file, hub name or a folder laid out like one, "
            "or the name of an entry of dataset_info",
            min_length=1,
        ),
    ]
    eval: Annotated[Data, says("held-out rows, in the same forms as train; empty: no eval loss")] = ""
    dataset_info: Annotated[File, says("LLaMA-Factory's dataset_info.json: train and eval are names in it")] = ""
    subset: Annotated[str, says("subset of a hub data set")] = ""
    train_split: Annotated[str, says("split of a hub data set to train on; slices work: train[:14000]")] = "train"
    eval_split: Annotated[str, says("split of a hub data set that is held out")] = "validation"
    format: Annotated[
        Literal["auto", "alpaca", "prompt-completion", "dolly", "sharegpt", "messages", "goemotions"],
        says("shape of the rows"),
    ] = "auto"
    columns: Annotated[
        dict[str, str],
        says(
            "fields of the rows by what they are, where none of the known names: prompt, query, response, system and "
            "history; or messages, role and content"
        ),
    ] = {}
    answers: Annotated[
        Literal["all", "last"],
        says(
            "which answers of a conversation are trained: all (each one a row, the turns before it its prompt) or last"
        ),
    ] = "all"
    instruction: Annotated[str, says("instruction for rows that carry none (GoEmotions)")] = ""
    labels: Annotated[File, says("label names, one per line (GoEmotions)")] = ""
    multi_label: Annotated[
        Literal["join", "first", "skip"],
        says("GoEmotions rows with several labels: join them, keep the first, or skip the row"),
    ] = "join"
    max_train_rows: Annotated[Count, says("train on at most this many rows, by a seeded choice; 0: all")] = 0
    max_eval_rows: Annotated[Count, says("evaluate at most this many held-out rows, by a seeded choice; 0: all")] = 0
    seed: Annotated[Seed, says("seed of the choice of rows")] = 0


class ProbeSettings(Table, frozen=True, kw_only=True):
    file: Annotated[File, says("the probes, JSONL", min_length=1)]
    n_words: Annotated[
        int,
        says(
            "words per probe that become variables; 0: as many as a probe has, at most 10; above 16 set masked_states",
            ge=0,
            le=64,
        ),
    ] = 0
    variables: Annotated[
        Literal["words", "phrases", "sentences", "characters", "tokens"],
        says(
            "what a variable is if a probe names no spans: words, or at most n_words phrases (runs of words between "
            "stop words and punctuation), sentences, characters (that share no token) or tokens"
        ),
    ] = "words"
    choice: Annotated[
        Literal["spread", "influence"],
        says(
            "which words become variables if a probe names none: spread (a seeded choice within the input, stop words "
            "last) or influence (those of the whole prompt that move v most, measured once when the run begins)"
        ),
    ] = "spread"
    seed: Annotated[Seed, says("seed of the choice of words")] = 0


class TrainingSettings(Table, frozen=True, kw_only=True):
    epochs: Annotated[Amount, says("length of the schedule in passes over the data")] = 30.0
    max_steps: Annotated[Count, says("stop after this many steps; the schedule keeps its length; 0: all")] = 0
    effective_batch_size: Annotated[Positive, says("rows per optimisation step")] = 64
    micro_batch_size: Annotated[Positive, says("rows per forward pass; must divide the effective batch")] = 8
    learning_rate: Annotated[Amount, says("peak learning rate")] = 1e-4
    schedule: Annotated[Literal["cosine", "linear", "constant"], says("learning-rate schedule, after the warm-up")] = (
        "cosine"
    )
    warmup_ratio: Annotated[Share, says("share of the schedule that warms up, whichever schedule; 0: none")] = 0.1
    weight_decay: Annotated[float, says("AdamW weight decay", ge=0, le=LARGEST)] = 0.0
    max_grad_norm: Annotated[Amount, says("gradient clip")] = 1.0
    method: Annotated[
        Literal["lora", "full"],
        says("lora, or full: every weight is trained, kept in float32 and computed in the dtype of the model"),
    ] = "lora"
    lora_rank: Annotated[Positive, says("LoRA rank r, on all linear layers but the output head")] = 8
    lora_alpha: Annotated[Amount, says("LoRA alpha")] = 16.0
    lora_dropout: Annotated[Share, says("LoRA dropout")] = 0.0
    use_rslora: Annotated[bool, says("rank-stabilised LoRA: scaled by alpha / sqrt(r)")] = False
    use_dora: Annotated[bool, says("DoRA: magnitude and direction of the weights are adapted separately")] = False
    cutoff: Annotated[
        int, says("tokens per example; the user's text is shortened, template and answer are kept", ge=8)
    ] = 8192
    trained_end: Annotated[
        TrainedEnd,
        says(
            "what is trained after the answer: token (the one that ends it) or template (all that the template has "
            "there, as TRL and LLaMA-Factory do)"
        ),
    ] = "token"
    gradient_checkpointing: Annotated[bool, says("recompute activations to save memory")] = False
    checkpoints: Annotated[tuple[Count, ...], says("optimisation steps to keep; the last step is always kept")] = (
        DEFAULT_CHECKPOINTS
    )
    patience: Annotated[
        Count,
        says("stop after this many checkpoints without a lower eval loss; the schedule keeps its length; 0: never"),
    ] = 0
    loss_rows: Annotated[Count, says("rows per set in the train and eval loss at a checkpoint; 0: all")] = 256
    accuracy_rows: Annotated[
        Count,
        says("held-out rows for the accuracy at every checkpoint (complete answer right, greedy decoding); 0: none"),
    ] = 0
    seed: Annotated[Seed, says("seed of the adapter and of the order of rows")] = 42


class ExtractionSettings(Table, frozen=True, kw_only=True):
    target: Annotated[
        Target,
        says(
            "what of the answer is scored: word (its first word), first-k:<number> (its first tokens), first (its "
            "first token), all, span:<text> (a part of it), token:<text> (that one token), or auto (word for an answer "
            "of at most three words, else first-k:8)"
        ),
    ] = "auto"
    baseline_vector: Annotated[
        Mask,
        says("what masks a word: mean (over the vocabulary), zero, or token:<text> (the embedding of that one token)"),
    ] = "mean"
    dtype: Annotated[
        Literal["float32", "auto", "tf32", "mixed", "bfloat16", "float16"],
        says(
            "precision of scoring; a lower one adds noise that imitates removal and emergence, so it is measured "
            "first; auto takes a lower one only if the sets stay the same"
        ),
    ] = "float32"
    zeta_of: Annotated[
        Literal["base", "range"],
        says(
            "what the noise bound is a share of: base (|v(x_N) - v(x_∅)| at step 0, fixed over the steps) or range "
            "(max v - min v at each step)"
        ),
    ] = "base"
    zeta: Annotated[
        float, says('with zeta_of = "base": noise bound as a share of |v(x_N) - v(x_∅)| at step 0', ge=0, le=0.5)
    ] = 0.02
    zeta_range: Annotated[
        float, says('with zeta_of = "range": noise bound as a share of max v - min v at each step', ge=0, le=0.5)
    ] = 0.012
    tolerance: Annotated[float, says("largest certified relative gap accepted", gt=0, le=0.1)] = 1e-3
    masked_states: Annotated[
        int,
        says(
            "score at most this many sampled masked states per probe (results become estimates); 0: all", ge=0, le=65536
        ),
    ] = 0
    replicates: Annotated[int, says("estimates from resampled masked states, for intervals", ge=0, le=100)] = 10
    check_states: Annotated[
        Count,
        says(
            "masked states per probe scored again without the tree, as a check and for the noise; --verify K overrides"
        ),
    ] = 8
    memory_gb: Annotated[Amount, says("memory for keys and values while scoring")] = 4.0
    seed: Annotated[Seed, says("seed of the choice of checked states")] = 0


class RunSettings(Table, frozen=True, kw_only=True):
    """Everything a run is made from; one attribute per table of the config file."""

    model: ModelSettings
    data: DataSettings
    probes: ProbeSettings
    training: TrainingSettings = TrainingSettings()
    extraction: ExtractionSettings = ExtractionSettings()

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Plain tables for run.toml, in the order of the classes."""
        return {
            table: {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(part).items()}
            for table, part in asdict(self).items()
        }

    def changed(self) -> dict[str, dict[str, Any]]:
        """The settings that differ from their default."""
        return {
            table: {
                spec.name: plain[spec.name] for spec in fields(part) if getattr(part, spec.name) != default_of(spec)
            }
            for table, plain in self.as_dict().items()
            for part in [getattr(self, table)]
        }


def load_settings(path: Path, sets: Sequence[str] = ()) -> RunSettings:
    """The settings in the TOML file (or preset) at `path`, as written, with those of `--set` (`sets`) in their place.

    SftscopeError with file and line where they do not fit. That every path exists is checked here;
    `resolve_paths` makes them absolute.
    """
    try:
        text = preset_text(path) or read_plain(path, MAX_TOML_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such config file; give the path of a TOML file") from None
    except OSError as error:
        raise SftscopeError(f"{path}: cannot be read: {error.strerror}; give the path of a TOML file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SftscopeError(f"{path}, line {line}: not valid UTF-8; save the file as UTF-8") from None
    try:
        tables = parse_toml(text)
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise SftscopeError(f"{path}: not valid TOML: {shown(str(error))}") from None
    places = apply_sets(tables, sets, settings_of(RunSettings))
    settings = settings_from_tables(
        tables, where=lambda table, key: places.get((table, key), f"{title(path)}{line_of(text, table, key)}")
    )
    resolve_paths(settings, path.absolute().parent, source=title(path))
    return settings


def settings_from_tables(
    tables: Mapping[str, Any], *, where: Where = lambda table, key: "settings", trained_here: bool = True
) -> RunSettings:
    """Checked settings from parsed TOML; `where(table, key)` says where a setting stands.

    trained_here: false for a run that others trained, which has no data of its own.
    """
    without_data = {} if trained_here else {"data": {"train": "of others"}}
    given = {**tables, **without_data}
    _check_each(given, where)
    settings = msgspec.convert(given, RunSettings)
    return _fitting_together(settings if trained_here else replace(settings, data=DataSettings(train="")), where)


def _check_each(tables: Mapping[str, Any], where: Where) -> None:
    """SftscopeError with the place of the first setting that is unknown, missing or out of range."""
    known = settings_of(RunSettings)
    for table in tables:
        if table not in known:
            raise SftscopeError(f"{where(table, None)}: unknown table [{shown(table)}]{hint(table, known)}")
    for table, settings in known.items():
        given = tables.get(table, {})
        if not isinstance(given, dict):
            raise SftscopeError(f"{where(table, None)}: expected a table [{table}], got {shown(repr(given))}")
        for name in given:
            if name not in settings:
                raise SftscopeError(
                    f"{where(table, name)}: unknown field {shown(repr(name))} in [{table}]{hint(name, settings)}"
                )
        for name, setting in settings.items():
            if name in given:
                setting.check(given[name], f"{where(table, name)}: [{table}] {name}")
            elif setting.default is None:
                raise SftscopeError(f"{where(table, None)}: [{table}] needs {name} = … ({setting.help}); add it")


def _fitting_together(settings: RunSettings, where: Where) -> RunSettings:
    """`settings`, where no two of them contradict each other."""
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
