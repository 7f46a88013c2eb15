"""`sftscope plan`: what a run, or the rest of one, will take, before anything runs.

Counts are exact, times are calibrated here. Composes the plans of training and of scoring; writes nothing.
"""

import copy
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sftscope.compat.positions import positions_of
from sftscope.compat.transformers import recomputation_name
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import say
from sftscope.inputs.presets import title
from sftscope.inputs.probes import Probe
from sftscope.inputs.settings import RunSettings, load_settings, resolve_paths
from sftscope.llm.arithmetic import FLOAT32, weights_dtype
from sftscope.llm.loading import LLM, device_name, load_llm, templated_tokenizer
from sftscope.llm.prompting.label_collisions import collision_warning
from sftscope.llm.prompting.probe_tokens import chosen_probes
from sftscope.llm.prompting.prompts import resolve_template
from sftscope.llm.prompting.targets import target_texts, target_warnings
from sftscope.preflight import scoring_cost as scoring
from sftscope.preflight import training_cost as training
from sftscope.runs.pipeline import open_run
from sftscope.scoring.influential_words import InfluentialWords
from sftscope.scoring.masking import MaskedPrompt, baseline_vector, masked_prompts
from sftscope.scoring.position_limits import position_warnings, refuse_beyond_positions
from sftscope.scoring.precision_choice import AUTO
from sftscope.scoring.prefix_tree import shared_prefix
from sftscope.scoring.scorer import Scorer
from sftscope.store.checkpoints import ready_checkpoints
from sftscope.training.data.labels import find_collisions
from sftscope.training.method import trainable, training_dtype

SCHEMA = "sftscope-plan"
VERSION = 1
_HOURS = 3600.0  # a warning from here on
_LIBRARIES_GB = 4.0  # of host memory: PyTorch and what comes with it
_BUSY = 1.25  # load per core, ours included


@dataclass(frozen=True, eq=False)
class _Measured:
    """Everything that was counted and measured. checkpoints: the steps that are extracted."""

    settings: RunSettings
    llm: LLM
    probes: scoring.ScoringWork
    scoring_speed: scoring.ScoringSpeed
    checkpoints: tuple[int, ...]
    rows: training.TrainingWork
    training_speed: training.TrainingSpeed
    loading_seconds: float
    collisions: dict[str, list[str]]
    target_warnings: list[str]
    positions: list[str]

    def seconds(self) -> dict[str, float]:
        """Predicted seconds by part of the run, and their total."""
        count = len(self.checkpoints)
        check_states = self.settings.extraction.check_states
        scored = scoring.scoring_seconds(self.probes, self.scoring_speed, check_states=check_states)
        parts = {
            "training": training.training_seconds(self.rows, self.training_speed),
            "scoring": count * scored,
            "decomposition": count * len(self.probes.lengths) * self.scoring_speed.per_decomposition,
            "loading": self.loading_seconds,
        }
        return {**parts, "total": sum(parts.values())}

    def memory_gb(self) -> dict[str, float]:
        """What extraction takes of the host and of its GPU (0 on a CPU), at most about.

        While a model is loaded its weights are on the host twice: as they are read, and as they are used.
        """
        half = self.settings.extraction.dtype not in (AUTO, FLOAT32)
        weights = sum(each.numel() for each in self.llm.model.parameters()) * (2 if half else 4) / 1e9
        scoring = weights + min(self.probes.cache_bytes / 1e9, self.settings.extraction.memory_gb)
        on_cpu = self.llm.device.type == "cpu"
        host = _LIBRARIES_GB + weights + (scoring if on_cpu else weights)
        return {"host": host, "device": 0.0 if on_cpu else scoring}


@dataclass(frozen=True)
class Span:
    """The least and the most of a number."""

    least: int
    most: int


@dataclass(frozen=True)
class Tokens:
    """Tokens that one checkpoint forwards; saving: how many times fewer in the tree."""

    naive: int
    tree: int
    saving: float


@dataclass(frozen=True)
class Cache:
    """Gigabytes of keys and values."""

    widest_level: float
    limit: float


@dataclass(frozen=True)
class Training:
    """What is trained; all 0 where nothing is."""

    rows: int
    steps: int
    padded_tokens: int
    padded_loss_tokens_per_checkpoint: int


@dataclass(frozen=True)
class Speed:
    """What was measured here."""

    scoring_tokens_per_second: float
    training_tokens_per_second: float
    seconds_per_decomposition: float


@dataclass(frozen=True)
class Plan:
    """What a run takes. seconds: by part of the run, with their total."""

    schema: str
    version: int
    model: str
    device: str
    dtype: str
    training_dtype: str
    threads: int
    probes: int
    n_variables: list[int]
    masked_states_per_checkpoint: int
    sampled_probes: int
    checkpoints: list[int]
    prompt_tokens: Span
    tail_tokens: Span
    tokens_per_checkpoint: Tokens
    cache_gb: Cache
    memory_gb: dict[str, float]
    training: Training
    speed: Speed
    seconds: dict[str, float]
    collisions: dict[str, list[str]]
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def plan(source: Path, sets: Sequence[str] = ()) -> Plan:
    """The plan of the run that a config describes, or of what is left to extract of a run folder.

    sets: as of `load_settings`, for a config.
    """
    made = _of_run(source) if source.is_dir() else _of_config(source, sets)
    seconds, work = made.seconds(), made.probes
    return Plan(
        schema=SCHEMA,
        version=VERSION,
        model=made.llm.name,
        device=device_name(made.llm.device),
        dtype=made.settings.extraction.dtype,
        training_dtype=made.settings.model.dtype,
        threads=torch.get_num_threads(),
        probes=len(work.lengths),
        n_variables=sorted(set(work.n_variables)),
        masked_states_per_checkpoint=work.masked_states,
        sampled_probes=sum(work.sampled),
        checkpoints=list(made.checkpoints),
        prompt_tokens=Span(min(work.lengths), max(work.lengths)),
        tail_tokens=Span(min(work.tails), max(work.tails)),
        tokens_per_checkpoint=Tokens(sum(work.naive_tokens), sum(work.tree_tokens), work.saving),
        cache_gb=Cache(work.cache_bytes / 1e9, made.settings.extraction.memory_gb),
        memory_gb=made.memory_gb(),
        training=Training(made.rows.rows, made.rows.steps, made.rows.tokens, made.rows.loss_tokens),
        speed=Speed(
            sum(work.scored_tokens) * len(made.checkpoints) / max(seconds["scoring"], 1e-9),
            1 / max(made.training_speed.per_token, 1e-12),
            made.scoring_speed.per_decomposition,
        ),
        seconds=seconds,
        collisions=made.collisions,
        warnings=_warnings(made, seconds),
    )


def render(plan: Plan) -> str:
    """The plan as text."""
    tokens, cache, learn = plan.tokens_per_checkpoint, plan.cache_gb, plan.training
    variables = "–".join(str(n) for n in dict.fromkeys((plan.n_variables[0], plan.n_variables[-1])))
    rows = [
        ("model", f"{plan.model}, {plan.dtype}, on {plan.device} ({plan.threads} threads)"),
        (
            "probes",
            f"{plan.probes}, n = {variables}: {plan.masked_states_per_checkpoint:,} masked states per checkpoint"
            + (f", sampled for {plan.sampled_probes}: ESTIMATED" if plan.sampled_probes else ""),
        ),
        ("prompts", f"{_span(plan.prompt_tokens)} tokens, {_span(plan.tail_tokens)} from the last word on"),
        ("checkpoints", f"{len(plan.checkpoints)}: {', '.join(map(str, plan.checkpoints))}"),
        (
            "tokens per checkpoint",
            f"{tokens.naive:,} naive, {tokens.tree:,} in the prefix tree: {tokens.saving:.1f}× fewer",
        ),
        ("keys and values", f"{cache.widest_level:.2f} GB at the widest level, limit {cache.limit:g} GB"),
        (
            "memory to extract",
            f"{plan.memory_gb['host']:.1f} GB of the host, {plan.memory_gb['device']:.1f} GB of a GPU",
        ),
    ]
    if learn.steps:
        rows.append(("training", f"{learn.steps} steps on {learn.rows:,} rows, {learn.padded_tokens:,} tokens"))
    lines = [f"{name:<22} {value}" for name, value in rows]
    lines += ["", "predicted time on this machine"]
    lines += [f"  {name:<18} {_duration(value):>10}" for name, value in plan.seconds.items()]
    lines += [f"warning: {line}" for line in plan.warnings]
    return "\n".join(lines)


def _of_config(config: Path, sets: Sequence[str]) -> _Measured:
    settings = resolve_paths(load_settings(config, sets), config.absolute().parent, source=title(config))
    tokenizer = templated_tokenizer(settings.model)
    kind = resolve_template(tokenizer, settings.model.template)
    influential = InfluentialWords(settings, tokenizer, kind)
    return _measure(settings, chosen_probes(settings.probes, tokenizer, kind, influential=influential, note=say))


def _of_run(run: Path) -> _Measured:
    settings, folder, _ = open_run(run)
    left = sorted({0, *ready_checkpoints(folder.checkpoints)} - set(folder.steps()))
    if not left:
        raise SftscopeError(f"{run}: nothing is left to extract: every checkpoint that is there has its step file")
    return _measure(settings, folder.read_probes(), left=tuple(left))


def _measure(settings: RunSettings, probes: Sequence[Probe], left: tuple[int, ...] | None = None) -> _Measured:
    """left: the steps that are still to be extracted of a training that is over; None: all, and the training."""
    say("plan: loading the model, then timing it for some seconds")
    startup = time.process_time()  # of the libraries, which a run imports too
    started = time.perf_counter()
    llm = load_llm(settings.model, dtype=training_dtype(settings.model, settings.training))
    load_seconds = time.perf_counter() - started
    template = resolve_template(llm.tokenizer, settings.model.template)
    prompts = masked_prompts(probes, llm.tokenizer, template, settings.extraction)
    ids, positions = [probe.id for probe in probes], positions_of(llm.model.config)
    refuse_beyond_positions(prompts, ids, positions)
    scorer = _scorer(settings, llm, prompts)
    extraction = settings.extraction
    speed = scoring.measure_speed(scorer, prompts, zeta=extraction.zeta, replicates=extraction.replicates)
    trains = left is None
    rows = training.count_work(settings, llm.tokenizer, template) if trains else training.NO_WORK
    return _Measured(
        settings=settings,
        llm=llm,
        probes=scoring.count_work(prompts, scorer),
        scoring_speed=speed,
        checkpoints=(0, *rows.grid) if left is None else left,
        rows=rows,
        training_speed=_training_speed(settings, llm, rows) if trains else training.TrainingSpeed(0.0, 0.0),
        loading_seconds=startup + (2 if trains else 1) * load_seconds,  # once to train, once to extract
        collisions=find_collisions(settings, [probe.response for probe in probes], llm.tokenizer) if trains else {},
        target_warnings=target_warnings(probes, target_texts(probes, llm.tokenizer, settings.extraction.target)),
        positions=position_warnings(prompts, ids, positions),
    )


def _scorer(settings: RunSettings, llm: LLM, prompts: Sequence[MaskedPrompt]) -> Scorer:
    """As a run has it, in float32 where the precision is yet to be measured.

    A run folds adapters into float32 weights, where they take no time, and keeps them next to 16-bit ones.
    """
    extraction = settings.extraction
    precision = FLOAT32 if extraction.dtype == AUTO else extraction.dtype
    dtype = weights_dtype(precision)
    trained = training_dtype(settings.model, settings.training)
    model = llm.model if dtype == trained else load_llm(settings.model, dtype=dtype).model
    if dtype != FLOAT32 and settings.training.method == "lora":
        if model is llm.model:
            model = copy.deepcopy(model)  # which is yet to get the adapter that is trained
        model = trainable(model, settings.training).eval().get_base_model()
    baseline = baseline_vector(model, extraction.baseline_vector, llm.tokenizer)
    return Scorer(
        model,
        baseline,
        extraction.memory_gb * 1e9,
        precision=precision,
        shared=shared_prefix(prompts),
        longest=max(len(prompt.ids) for prompt in prompts),
    )


def _training_speed(settings: RunSettings, llm: LLM, rows: training.TrainingWork) -> training.TrainingSpeed:
    wrapped = trainable(llm.model, settings.training)
    if settings.training.gradient_checkpointing:
        getattr(wrapped, f"{recomputation_name()}_enable")()
    half = settings.model.dtype if llm.device.type == "cuda" else "float32"
    pad = llm.tokenizer.pad_token_id
    return training.measure_speed(
        wrapped.train(),
        rows,
        0 if pad is None else pad,
        half=None if half == "float32" else getattr(torch, half),
    )


def _warnings(made: _Measured, seconds: dict[str, float]) -> list[str]:
    found = [*made.positions, *made.rows.remarks]
    found += scoring.warnings_of(made.probes, made.settings.extraction.memory_gb)
    if made.settings.extraction.dtype == AUTO:
        found.append("[extraction] dtype is auto: the times are those of float32; a run measures what may be faster")
    exact = [n for n, sampled in zip(made.probes.n_variables, made.probes.sampled, strict=True) if not sampled]
    if (n := max(exact, default=0)) > scoring.TIMED_WORDS:
        found.append(f"decomposing {n} words takes too long to be timed here: that time is an estimate from a table")
    if len(exact) < len(made.probes.sampled):
        found.append(
            "masked states are sampled: interactions are estimates, and the predicted time is that of made-up scores; "
            "scores that few interactions explain take less time, others more"
        )
    found += [*made.target_warnings, *filter(None, [collision_warning(made.collisions)])]
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if made.llm.device.type == "cpu" and load > _BUSY * cores:
        found.append(
            f"this machine is busy (load {load:.1f} on {cores} cores): the times hold only while it is; "
            "plan again when it is idle"
        )
    if seconds["total"] > _HOURS:
        trained = f", with {made.rows.steps} steps of training," if made.rows.steps else ""
        dearest = "training" if seconds["training"] > seconds["scoring"] else "scoring"
        found.append(
            f"{len(made.checkpoints)} checkpoints of {len(made.probes.lengths)} probes{trained} take about "
            f"{_duration(seconds['total'])}, most of it {dearest}; "
            + (
                "fewer checkpoints, probes or masked_states shorten it"
                if any(made.probes.sampled)
                else "fewer checkpoints or probes, or one word less (about half the work), shorten it"
                if dearest == "scoring"
                else "[training] max_steps shortens it"
            )
        )
    return found


def _span(ends: Span) -> str:
    return str(ends.least) if ends.least == ends.most else f"{ends.least}–{ends.most}"


def _duration(seconds: float) -> str:
    """Seconds as a reader says them."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
