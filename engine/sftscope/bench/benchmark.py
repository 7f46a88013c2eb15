"""`sftscope bench`: the speed of this machine on the reference work; every figure with both sides of its ratio.

Scoring: the prefix tree against plain batched forwards of all masked states, and the memory it takes against
its limit. Decomposition: against
HiGHS, given the same program from its definition. Möbius transform: against shapiq's exact computer,
where that is installed. Times are medians over repeats; slow references run on a sample, which is said.
"""

import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from random import Random
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from sftscope.bench.memory import peak_bytes
from sftscope.decomposition import decompose
from sftscope.decomposition.exact.lattice_program import effect_weights
from sftscope.demo import FOLDER as DEMO
from sftscope.foundation.progress import say
from sftscope.foundation.threads import usable_cores, waiting
from sftscope.inputs.probes import choose_words, read_probes
from sftscope.inputs.settings import ModelSettings
from sftscope.lattice.transforms import Floats, moebius_transform
from sftscope.llm.loading import device_name, load_llm, machine, resolve_device, versions
from sftscope.scoring.masking import MaskedPrompt, baseline_vector, mask_probe
from sftscope.scoring.scorer import Scorer, tree_tokens

SCHEMA = "sftscope-bench"
VERSION = 1
SECONDS = 15.0  # no further repeat of one measurement once its repeats took so long
_BATCHES = (8, 32, 128)  # rows of a plain forward that are tried


@dataclass(frozen=True)
class Work:
    """How much is measured; the defaults are the figures of the documentation.

    words, length, tail: a prompt of `length` tokens, `tail` of them from the last word on. sizes: n of
    the decompositions. vectors, highs_vectors: how many are decomposed, and given to HiGHS. memory_*: sizes,
    prompt and limit of the peak memory.
    """

    words: int = 10
    length: int = 128
    tail: int = 17
    hidden_size: int = 256
    layers: int = 4
    sizes: tuple[int, ...] = (8, 10)
    vectors: int = 4
    highs_vectors: int = 1
    moebius_n: int = 15
    repeats: int = 3
    memory_sizes: tuple[int, ...] = (10, 12, 14, 16)
    memory_length: int = 64
    memory_mb: float = 128.0


@dataclass(frozen=True)
class Figure:
    """One ratio: `ours` and `reference` in `unit`; None where the reference could not be measured."""

    name: str
    title: str
    unit: str
    ours: float
    reference: float | None
    ratio: float | None
    note: str = ""


@dataclass(frozen=True)
class Benchmark:
    """All figures, and what they were measured on."""

    schema: str
    version: int
    device: str
    threads: int
    cores: int
    waiting: str
    machine: dict[str, Any]
    model: str
    words: int
    prompt_tokens: int
    repeats: int
    versions: dict[str, str]
    figures: list[Figure]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def bench(model_path: str = "", work: Work | None = None) -> Benchmark:
    """All figures; model_path: a model instead of the demo's shape scaled up with random weights."""
    work = work or Work()
    device = resolve_device("auto")
    say("bench: scoring")
    name, model = _model(model_path, work, device)
    figures = _scoring(model, work)
    del model
    for n in work.memory_sizes:
        say(f"bench: peak memory, n = {n}")
        figures.append(_memory(n, work, device))
    for n in work.sizes:
        say(f"bench: decomposition, n = {n}")
        figures.append(_decomposition(n, work))
    say(f"bench: Möbius transform, n = {work.moebius_n}")
    figures.append(_moebius(work))
    return Benchmark(
        schema=SCHEMA,
        version=VERSION,
        device=device_name(device),
        threads=torch.get_num_threads(),
        cores=usable_cores(),
        waiting=waiting(os.environ),
        machine=machine(),
        model=name,
        words=work.words,
        prompt_tokens=work.length,
        repeats=work.repeats,
        versions=versions(),
        figures=figures,
    )


def render(result: Benchmark) -> str:
    """The figures as a table."""
    lines = [
        f"{result.device}, {result.threads} threads on {result.cores} cores, "
        f"{result.machine['cpu']}, {result.machine['vector_unit']}, {', '.join(result.machine['blas'])}, "
        f"{result.waiting or 'OpenMP waits by its default'} · {result.model} · n = {result.words}, "
        f"{result.prompt_tokens} tokens · medians of at most {result.repeats}",
        f"{'':<44} {'ours':>11} {'reference':>11} {'ratio':>9}",
    ]
    for figure in result.figures:
        sides = [
            f"{_number(value):>{width}}"
            for value, width in ((figure.ours, 11), (figure.reference, 11), (figure.ratio, 8))
        ]
        lines.append(f"{figure.title + ', ' + figure.unit:<44} {' '.join(sides)}×")
        lines += [f"    {figure.note}"] if figure.note else []
    return "\n".join(lines)


def reference_prompt(work: Work, vocabulary: int) -> MaskedPrompt:
    """Random tokens; words of one token, each followed by one of no word, and a tail that stands after them."""
    ids = np.random.default_rng(0).integers(0, vocabulary, size=work.length)
    owner = np.full(work.length, -1)
    last = work.length - work.tail
    owner[last - 2 * np.arange(work.words)[::-1]] = np.arange(work.words)
    return MaskedPrompt(tuple(ids.tolist()), tuple(owner.tolist()), int(ids[0]), work.words)


def highs_objective(v: Floats, zeta: float) -> float:
    """min Σ w|x| subject to |D x − v|_∞ ≤ ζ, D = [Z O] of the method, by HiGHS; v: a score, (2^n,)."""
    from scipy.optimize import linprog

    n = len(v).bit_length() - 1
    subsets = np.arange(1, 1 << n)
    both = subsets[:, None] & subsets[None, :]
    matrix = np.hstack([both == subsets[None, :], both != 0]).astype(float)
    weights = effect_weights(n)[:, 1:].ravel()
    result: Any = linprog(
        np.concatenate([weights, weights, np.zeros(len(subsets))]),
        A_eq=np.hstack([matrix, -matrix, -np.eye(len(subsets))]),
        b_eq=(v - v[0])[1:],
        bounds=[(0.0, None)] * (2 * len(weights)) + [(-zeta, zeta)] * len(subsets),
        method="highs",
    )
    return float(result.fun)


def _scoring(model: Any, work: Work) -> list[Figure]:
    """The tree against naive scoring, and against a plain forward."""
    prompt = reference_prompt(work, model.config.get_text_config().vocab_size)
    scorer = Scorer(model, baseline_vector(model, "mean"), 4e9)
    states, tokens = 1 << work.words, tree_tokens(prompt)
    tree, scores = _median(lambda: scorer.score(prompt), work.repeats)
    subsets = [np.linspace(0, states - 1, min(rows, states)).astype(int).tolist() for rows in _BATCHES]
    per_state, (chosen, naive_scores) = _fastest(
        [(len(part), partial(_naive, scorer, prompt, part)) for part in subsets], work.repeats
    )
    naive = per_state * states
    difference = float(np.abs(scores[chosen] - naive_scores).max())
    plain, _ = _fastest([(rows, partial(_plain_forward, model, prompt, rows)) for rows in _BATCHES], work.repeats)
    token_ratio = states * work.length / tokens
    speed, plain_speed = tokens / tree, work.length / plain
    return [
        Figure(
            "tree_against_naive",
            "prefix tree against naive scoring",
            "s per probe",
            tree,
            naive,
            naive / tree,
            f"{tokens:,} tokens against {states * work.length:,} ({token_ratio:.1f}× fewer): "
            f"{naive / tree / token_ratio:.0%} of that is reached; naive from {len(chosen)} of {states} states, "
            f"its fastest batch; largest difference in v {difference:.1e}",
        ),
        Figure(
            "tree_against_plain_forward",
            "tokens of the tree against a plain batch",
            "tokens/s",
            speed,
            plain_speed,
            speed / plain_speed,
        ),
    ]


def _memory(n: int, work: Work, device: torch.device) -> Figure:
    """How far the memory of a process grows while it scores a prompt of n words, against the limit it was given."""
    limit = work.memory_mb * 1e6
    small, part = replace(work, hidden_size=64, layers=4), replace(work, words=n, length=work.memory_length, tail=4)
    grown = peak_bytes(partial(_memory_case, small, part, device), limit)
    note = f"{1 << n:,} masked states of {part.length} tokens"
    return Figure(
        f"memory_n{n}", f"peak memory, n = {n}, against its limit", "MB", grown / 1e6, limit / 1e6, limit / grown, note
    )


def _memory_case(shape: Work, work: Work, device: torch.device) -> tuple[Any, MaskedPrompt, MaskedPrompt]:
    torch.set_num_threads(min(2, torch.get_num_threads()))
    _, model = _model("", shape, device)
    vocabulary = model.config.vocab_size
    warm = replace(work, words=1)
    return model, reference_prompt(warm, vocabulary), reference_prompt(work, vocabulary)


def _naive(scorer: Scorer, prompt: MaskedPrompt, subsets: Sequence[int]) -> tuple[Sequence[int], Floats]:
    return subsets, scorer.score_naively(prompt, subsets)


@torch.inference_mode()
def _plain_forward(model: Any, prompt: MaskedPrompt, rows: int) -> torch.Tensor:
    """One forward of `rows` copies of the prompt, waited for."""
    ids = torch.tensor([prompt.ids], device=model.get_input_embeddings().weight.device).expand(rows, -1)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
    return logits[0, -1, :1].cpu()


def _decomposition(n: int, work: Work) -> Figure:
    """Seconds a vector, on scores of the embedded demo model, against HiGHS on the first of them."""
    scores = _demo_scores(n, work.vectors)
    zeta = 0.02 * np.maximum(np.abs(scores[:, -1] - scores[:, 0]), 0.5)
    ours, result = _median(lambda: decompose(scores, zeta), work.repeats)
    sample = scores[: work.highs_vectors]
    highs, objectives = _median(
        lambda: [highs_objective(v, float(z)) for v, z in zip(sample, zeta, strict=False)], work.repeats
    )
    excess = float((result.objective[: len(sample)] / objectives).max() - 1)
    per_vector, reference = ours / len(scores), highs / len(sample)
    return Figure(
        f"decomposition_n{n}",
        f"decomposition, n = {n}, against HiGHS",
        "s a vector",
        per_vector,
        reference,
        reference / per_vector,
        f"{len(scores)} vectors, worst certified gap {result.gap.max():.1e}; HiGHS on {len(sample)}; "
        f"objective over that of HiGHS: {excess:+.1e}",
    )


def _demo_scores(n: int, count: int) -> Floats:
    """Scores of the embedded model on its own probes with n words each: (count, 2^n)."""
    llm = load_llm(ModelSettings(path=str(next(DEMO.glob("guesthouse-*"))), device="cpu"))
    scorer = Scorer(llm.model, baseline_vector(llm.model, "mean"), 1e9)
    probes = read_probes(DEMO / "probes.jsonl", n_words=n, seed=0)[:count]
    chosen = [replace(probe, words=choose_words(probe.text, n, Random(0))) for probe in probes]
    return np.stack([scorer.score(mask_probe(probe, llm.tokenizer, "chat")) for probe in chosen])


def _moebius(work: Work) -> Figure:
    """One transform of a random score vector."""
    n = work.moebius_n
    scores = np.random.default_rng(0).normal(size=1 << n)
    ours, effects = _median(lambda: moebius_transform(scores), max(work.repeats, 5))
    title = f"Möbius transform, n = {n}, against shapiq"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from shapiq import ExactComputer
    except ImportError:
        note = "shapiq is not installed; pip install shapiq"
        return Figure("moebius", title, "s", ours, None, None, note)
    powers = 1 << np.arange(n)

    def by_shapiq() -> tuple[float, Any]:
        """Seconds of the transform alone: the game is evaluated before."""
        computer = ExactComputer(lambda x: scores[x @ powers], n, evaluate_game=True)
        started = time.perf_counter()
        values = computer("Moebius", n)
        return time.perf_counter() - started, values

    seconds, values = by_shapiq()
    whole = tuple(range(n))
    difference = abs(float(values[whole]) - float(effects[-1]))
    note = f"shapiq measured once; difference at the full set {difference:.1e}"
    return Figure("moebius", title, "s", ours, seconds, seconds / ours, note)


def _model(path: str, work: Work, device: torch.device) -> tuple[str, Any]:
    """(name, model): the LLM at `path`, or a random one of the demo's kind, larger."""
    if path:
        llm = load_llm(ModelSettings(path=path))
        return llm.name, llm.model
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=work.hidden_size,
        intermediate_size=work.hidden_size * 8 // 3,
        num_hidden_layers=work.layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=max(256, work.length),
    )
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False).to(device)
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return f"random Llama of {size:.0f}M", model


def _median(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """(median seconds, result of the last call); the first call warms up and counts only where it is alone."""
    seconds: list[float] = []
    while len(seconds) <= repeats:
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
        if sum(seconds) > SECONDS:
            break
    return statistics.median(seconds[1:] or seconds), result


def _fastest(choices: Sequence[tuple[int, Callable[[], Any]]], repeats: int) -> tuple[float, Any]:
    """(least seconds a row, result) over batches of (rows, work); larger ones are left out once they take long."""
    best: tuple[float, Any] | None = None
    for rows, work in choices:
        seconds, result = _median(work, repeats)
        if best is None or seconds / rows < best[0]:
            best = seconds / rows, result
        if seconds > SECONDS / 5:
            break
    assert best is not None
    return best


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
