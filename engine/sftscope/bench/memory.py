"""Peak memory of scoring against its limit, each size in a process of its own: a peak never goes down again."""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from sftscope.scoring.masking import MaskedPrompt, baseline_vector
from sftscope.scoring.scorer import Scorer

Make = Callable[[], tuple[torch.nn.Module, MaskedPrompt, MaskedPrompt]]


def peak_bytes(make: Make, limit: float) -> int:
    """Bytes by which memory grows while the second prompt of `make()` is scored under `limit` bytes.

    make: a function of a module, or a partial of one; it returns a model, a prompt to get warm on, and the prompt.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grown, (make, limit))


def _grown(make: Make, limit: float) -> int:
    model, small, prompt = make()
    scorer = Scorer(model, baseline_vector(model, "mean"), limit)
    scorer.score(small)
    before = _in_use(scorer.baseline.device)
    scorer.score(prompt)
    return max(1, _most(scorer.baseline.device) - before)


def _in_use(device: torch.device) -> int:
    """Bytes now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return _of_process("VmRSS") or _most(device)


def _most(device: torch.device) -> int:
    """Bytes at most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # getrusage counts what the parent had before this process began, Linux' own table does not
    unit = 1 if sys.platform == "darwin" else 1024
    return _of_process("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _of_process(name: str) -> int:
    """A line of Linux' status of this process, in bytes; 0 where there is none."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
