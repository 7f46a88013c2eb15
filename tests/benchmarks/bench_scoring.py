"""Speed of masked-state scoring: the tree against naive forwards, and against the speed of plain forwards.

    python tests/benchmarks/bench_scoring.py MODEL [--words 10] [--threads 1]

MODEL: a model folder, hub name or GGUF file. The prompt is random tokens: BEFORE, then words of two tokens, the
last of which begins TAIL tokens. Naive scoring is timed on a sample of batches, each batch size in turn, and
extrapolated from the best. Both sides alternate; medians over the repeats. With one thread, times are
CPU seconds, which other processes disturb less.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from sftscope.inputs.settings import ModelSettings
from sftscope.llm.arithmetic import Arithmetic, weights_dtype
from sftscope.llm.loading import load_llm
from sftscope.scoring.masking import MaskedPrompt, baseline_vector
from sftscope.scoring.prefix_tree import last_logits
from sftscope.scoring.scorer import STOCK, Scorer, tree_tokens

NAIVE_ROWS = (4, 8, 16, 32)


def random_prompt(words: int, before: int, tail: int, vocabulary: int) -> MaskedPrompt:
    owner = [-1] * before
    for variable in range(words - 1):
        owner += [variable, variable]
    owner += [words - 1] + [-1] * (tail - 1)
    ids = np.random.default_rng(0).integers(vocabulary, size=len(owner))
    return MaskedPrompt(tuple(ids.tolist()), tuple(owner), int(ids[0]), words)


def seconds(work: Callable[[], object]) -> float:
    """Of one call; CPU seconds where there is one thread on a CPU."""
    clock = time.process_time if torch.get_num_threads() == 1 and not torch.cuda.is_available() else time.perf_counter
    start = clock()
    work()  # scores are numpy arrays: a GPU has finished when it returns
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--words", type=int, default=10)
    parser.add_argument("--before", type=int, default=93)
    parser.add_argument("--tail", type=int, default=17)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", default="float32", help="float32, tf32, mixed, bfloat16 or float16")
    parser.add_argument("--memory-gb", type=float, default=4.0)
    parser.add_argument("--stock", action="store_true", help="time the tree on the stock cache too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model = load_llm(ModelSettings(path=options.model), dtype=weights_dtype(options.precision)).model
    memory = options.memory_gb * 1e9
    scorer = Scorer(model, baseline_vector(model, "mean"), memory, precision=options.precision)
    arithmetic = Arithmetic(model, options.precision)
    prompt = random_prompt(options.words, options.before, options.tail, model.config.get_text_config().vocab_size)
    states, length = 1 << options.words, len(prompt.ids)
    tree, naive = tree_tokens(prompt), states * length
    print(f"{states} states, {length} tokens: naive {naive:,} tokens, tree {tree:,}, {naive / tree:.2f}x fewer")

    def plain(rows: int) -> Callable[[], object]:
        embedded = scorer.embed(prompt, np.arange(rows), 0, length)

        def work() -> object:
            with torch.inference_mode(), arithmetic.active():
                return last_logits(model, embedded, 1).sum().item()

        work()
        return work

    batches = {rows: plain(rows) for rows in NAIVE_ROWS if rows <= states}
    print(f"method: {scorer.method}")
    per_token: dict[int, list[float]] = {rows: [] for rows in batches}
    tree_times, stock_times = [], []
    scores: list[np.ndarray] = []
    for _ in range(options.repeats):
        tree_times.append(seconds(lambda: scores.append(scorer.score(prompt))))
        for rows, work in batches.items():
            per_token[rows].append(seconds(work) / (rows * length))
        if options.stock:
            stock_times.append(seconds(lambda: scorer.score_by(STOCK, prompt)))
    rows, best = min(((rows, median(times)) for rows, times in per_token.items()), key=lambda item: item[1])
    took = median(tree_times)
    print(f"tree    {took:8.1f} s    {tree / took:9.0f} tokens/s")
    print(f"plain   {'':8}      {1 / best:9.0f} tokens/s at the best batch, {rows} rows of {length}")
    print(f"naive   {naive * best:8.1f} s    extrapolated from that")
    if stock_times:
        print(f"stock   {median(stock_times):8.1f} s    {tree / median(stock_times):9.0f} tokens/s")
    print(f"tree / plain: {tree / took * best:.2f}    naive / tree: {naive * best / took:.2f}x")
    sample = np.unique(np.linspace(0, states - 1, 16).astype(int))
    difference = np.abs(scores[-1][sample] - scorer.score_naively(prompt, sample.tolist())).max()
    print(f"largest difference on {len(sample)} states: {difference:.1e}")


if __name__ == "__main__":
    main()
