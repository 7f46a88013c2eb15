"""Loads a base LLM and its tokenizer from the hub, a folder or a GGUF file; safetensors or GGUF only.

No code from a model folder is run and nothing is unpickled.
"""

import os
import platform
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import find_adapter_config_file
from transformers.utils import logging as transformers_logging

from sftscope.compat.input_vectors import as_arguments, input_vectors
from sftscope.compat.positions import Positions, positions_of
from sftscope.files.folders import check_files
from sftscope.files.opening import read_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.machine_errors import is_out_of_memory
from sftscope.foundation.safe_text import safe_text
from sftscope.foundation.threads import blas_libraries, cpu_name, usable_cores, waiting
from sftscope.inputs.settings import ModelSettings
from sftscope.llm.hub import refuse_unreachable
from sftscope.llm.model_config import CONFIG, check_config
from sftscope.llm.prompting.prompts import set_template
from sftscope.llm.prompting.template_date import freeze_date
from sftscope.llm.prompting.tokenizer_trial import try_tokenizer
from sftscope.llm.weights.untrusted_weights import check_weights, numbers_in

TOKENIZER = "tokenizer.json"
_MAX_TEMPLATE_BYTES = 2**20
# Logits of the same forward may differ by this share of the largest: the arithmetic is the same, only its start differs
_SAME = {torch.float32: 1e-4}
_SAME_IN_HALF = 2e-2
_SPARE, _SMALL = 2, 2**24  # a model may have what is tied twice, and tables of positions next to its weights


@dataclass(frozen=True, eq=False)
class LLM:
    """A base model on its device, in evaluation mode, with its tokenizer."""

    model: Any
    tokenizer: Any
    name: str
    device: torch.device


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device that is there; of several processes each takes its own."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        rank = os.environ.get("LOCAL_RANK")  # as torchrun and accelerate launch set it
        return torch.device("cuda" if rank is None else f"cuda:{rank}")
    if name == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SftscopeError(f"[model] device: expected auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SftscopeError(
            f"[model] device: {name} is not there ({torch.cuda.device_count()} CUDA devices); use auto or cpu"
        )
    return device


def device_name(device: torch.device) -> str:
    """The device as a reader knows it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def versions() -> dict[str, str]:
    """Versions that results may depend on."""
    return {name: version(name) for name in ("sftscope", "torch", "transformers", "peft", "numpy")}


def threads() -> dict[str, Any]:
    """Cores that this process may use, threads that PyTorch runs on them, and how those wait."""
    return {"cores": usable_cores(), "torch": torch.get_num_threads(), "waiting": waiting(os.environ)}


def machine() -> dict[str, Any]:
    """What decides, besides the number of threads, how a sum is rounded: CPU, PyTorch's vector unit, BLAS libraries."""
    return {"cpu": cpu_name(), "vector_unit": torch.backends.cpu.get_cpu_capability(), "blas": blas_libraries()}


def model_name(path: str) -> str:
    """The name a model goes by: the hub name, or the last part of its path without `.gguf`."""
    return path if not Path(path).exists() else Path(path).name.removesuffix(".gguf")


def load_tokenizer(path: str) -> Any:
    """The fast tokenizer of a model; SftscopeError where there is none that gives character offsets."""
    refuse_unreachable(path)
    with _quiet(), _as_one_line(path, "tokenizer"):
        check_weights(Path(path))
        _try_tokenizer(path)
        tokenizer = AutoTokenizer.from_pretrained(**_location(path), trust_remote_code=False)
        if not Path(path).exists() and find_adapter_config_file(path):
            raise SftscopeError(f"{path}: this hub repository is an adapter, no base model; give its base model")
    if not tokenizer.is_fast:
        raise SftscopeError(f"{path}: expected a fast tokenizer (tokenizer.json): character offsets need it")
    return tokenizer


def saved_tokenizer(folder: Path) -> Any:
    """The tokenizer that a training saved next to an adapter or a model; None where it saved none."""
    if not (folder / TOKENIZER).exists():
        return None
    with _quiet(), _as_one_line(str(folder), "tokenizer"):
        check_files(folder)
        if (folder / CONFIG).exists():
            check_config(folder / CONFIG)  # which tells transformers the kind of the tokenizer
        try_tokenizer(folder / TOKENIZER)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def templated_tokenizer(settings: ModelSettings) -> Any:
    """The tokenizer of `settings` (paths resolved) with the template and the system prompt that they ask for."""
    tokenizer = _tokenizer_of(settings)
    template = read_template(settings.template_file) if settings.template_file else ""
    if settings.template_date:
        freeze_date(tokenizer, settings.template_date)
    set_template(tokenizer, template, settings.system)
    return tokenizer


def read_template(file: str) -> str:
    """The Jinja chat template in a file."""
    try:
        template = read_plain(Path(file), _MAX_TEMPLATE_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SftscopeError(f"{file}: cannot be read: {safe_text(str(error))}") from None
    if not template.strip():
        raise SftscopeError(f"{file}: expected a Jinja chat template, got an empty file")
    return template


def _tokenizer_of(settings: ModelSettings) -> Any:
    """That of the training, where it added tokens and its tokenizer is at hand, else the model's own."""
    if not settings.tokenizer:
        return load_tokenizer(settings.path)
    file = Path(settings.tokenizer)
    if file.name != TOKENIZER:
        raise SftscopeError(f"{file}: expected a file called {TOKENIZER}, with the tokenizer's other files next to it")
    return saved_tokenizer(file.parent)


def load_llm(settings: ModelSettings, *, dtype: str | None = None) -> LLM:
    """The base LLM of `settings`, on its device, in `dtype` (default: that of the settings)."""
    device = resolve_device(settings.device)
    tokenizer = templated_tokenizer(settings)
    wanted = getattr(torch, dtype or settings.dtype)
    quantised = _quantised(settings, wanted, device)
    with _quiet(), _as_one_line(settings.path, "model"):
        if not _is_gguf(settings.path):
            _check_kind_and_size(settings.path)
        model, info = AutoModelForCausalLM.from_pretrained(
            **_location(settings.path),
            dtype=wanted,
            trust_remote_code=False,
            output_loading_info=True,
            **({} if _is_gguf(settings.path) else {"use_safetensors": True}),
            **quantised,
        )
    _refuse_missing(settings.path, info["missing_keys"])
    if _is_gguf(settings.path):
        _forget_quantisation(model)
    model.requires_grad_(False)
    if not quantised:  # those are on their device already
        model = model.to(device)
    check_input_vectors(model.eval(), settings.path)
    return LLM(model, tokenizer, model_name(settings.path), device)


@torch.inference_mode()
def check_input_vectors(model: Any, name: str) -> None:
    """SftscopeError for a model that does not answer to the input vectors of a prompt as it does to its ids.

    Masking replaces input vectors, so that every score is a forward from them. One prompt of eight tokens, both ways.
    """
    weight = model.get_input_embeddings().weight
    places = torch.linspace(0.1, 0.6, 8, dtype=torch.float64)  # those at the ends are often special
    ids = (places * weight.shape[0]).long()[None].to(weight.device)
    expected = model(input_ids=ids, use_cache=False).logits.float()
    try:
        logits = model(**as_arguments(model, input_vectors(model, ids)), use_cache=False).logits.float()
    except Exception as error:  # whatever a foreign forward makes of it
        if is_out_of_memory(error):
            raise
        reason = safe_text(str(error).strip().partition("\n")[0], max_length=160) or type(error).__name__
    else:
        apart = float((logits - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
        if apart <= _SAME.get(model.dtype, _SAME_IN_HALF) or not expected.isfinite().all():
            return  # what is not finite is refused by its name once it is scored
        reason = f"its logits differ by {apart:.2g} of the largest"
    kind = safe_text(str(model.config.model_type), max_length=60)
    raise SftscopeError(
        f"{name}: a model of the kind {kind} answers to the embeddings of a prompt otherwise than to its ids, and "
        f"words are masked in the embeddings ({reason}); it cannot be scored, use another model"
    )


def load_positions(path: str) -> Positions:
    """How many positions the model at `path` is made for, by its config; nothing of its weights is loaded."""
    with _quiet(), _as_one_line(path, "model"):
        return positions_of(AutoConfig.from_pretrained(**_location(path), trust_remote_code=False))


def _quantised(settings: ModelSettings, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` needs for weights in 8 or 4 bits; empty where they are not asked for."""
    if settings.quantization == "none":
        return {}
    place = f"[model] quantization: {settings.quantization}"
    if find_spec("bitsandbytes") is None:
        raise SftscopeError(f"{place} needs bitsandbytes; install it with: pip install bitsandbytes")
    if _is_gguf(settings.path):
        raise SftscopeError(f"{place}: a GGUF file cannot be quantised again; use none, or a model folder")
    eight = settings.quantization == "int8"
    config = BitsAndBytesConfig(
        load_in_8bit=eight,
        load_in_4bit=not eight,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _try_tokenizer(path: str) -> None:
    """SftscopeError for a tokenizer.json that takes too long or too much memory; the one of a GGUF file is none.

    Of a hub name also its config.json is looked at, which decides on the kind of the tokenizer.
    """
    if _is_gguf(path):
        return
    for name in (CONFIG, TOKENIZER):
        file = Path(path) / name if Path(path).is_dir() else _hub_file(path, name)
        if file is None or not file.exists():
            continue
        if name == TOKENIZER:
            try_tokenizer(file)
        elif not Path(path).is_dir():  # else compared with the weights already
            check_config(file)


def _hub_file(path: str, name: str) -> Path | None:
    """A file of a model of the hub in the cache, downloaded where it is not there; None where it cannot be had."""
    if (cached := try_to_load_from_cache(path, name)) is not None:
        return Path(cached) if isinstance(cached, str) else None
    try:
        return Path(hf_hub_download(path, name))
    except (OSError, ValueError):  # no such model, no such file, no network: whoever loads it says so
        return None


def _check_kind_and_size(path: str) -> None:
    """SftscopeError for a model whose answer is not the continuation of its prompt, or larger than its weights."""
    config = AutoConfig.from_pretrained(**_location(path), trust_remote_code=False)
    if config.is_encoder_decoder:
        kind = safe_text(str(config.model_type), max_length=60)
        raise SftscopeError(
            f"{path}: an encoder-decoder model ({kind}) cannot be scored; expected a causal LM, decoder only"
        )
    held = numbers_in(Path(path))
    if held and (declared := _numbers_of(config)) > _SPARE * held + _SMALL:
        raise SftscopeError(
            f"{path}: its config declares a model of {declared:.2g} numbers, its weights hold {held:.2g}; "
            "get the model again"
        )


def _numbers_of(config: Any) -> int:
    """How many numbers a model of this config has; nothing of that size is made."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(each.numel() for each in (*model.parameters(), *model.buffers()))


def _refuse_missing(path: str, missing: Collection[str]) -> None:
    """SftscopeError where the weights lack some of the model: transformers fills it with random numbers, and warns."""
    for name in sorted(missing):
        raise SftscopeError(f"{path}: its weights lack {safe_text(name, max_length=120)}; get the model again")


def _forget_quantisation(model: Any) -> None:
    """A GGUF file is dequantised as it is read, but the model still says it is quantised and refuses to train."""
    model.is_quantized = False
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _is_gguf(path: str) -> bool:
    return "gguf_file" in _location(path)


def _location(path: str) -> dict[str, Any]:
    """Where `from_pretrained` finds a model: a hub name or folder, or a GGUF file within its folder."""
    if path.endswith(".gguf"):
        file = Path(path)
        return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    if Path(path).is_dir() and not (Path(path) / "config.json").exists():
        files = sorted(Path(path).glob("*.gguf"))
        if len(files) == 1:
            return {"pretrained_model_name_or_path": path, "gguf_file": files[0].name}
        raise SftscopeError(
            f"{path}: not a model folder: expected config.json or one GGUF file, found {len(files)} GGUF files"
        )
    return {"pretrained_model_name_or_path": path}


@contextmanager
def _as_one_line(path: str, what: str) -> Iterator[None]:
    try:
        yield
    except SftscopeError:
        raise
    except Exception as error:  # files of any origin reach several libraries here; what they raise is the file's fault
        if is_out_of_memory(error):
            raise
        if "trust_remote_code" in str(error):
            raise SftscopeError(
                f"{path}: the {what} needs code of its own, and code from a model folder is never run; "
                "use a model that transformers knows"
            ) from error
        reason = safe_text(str(error).strip().partition("\n")[0], max_length=300)
        raise SftscopeError(
            f"{path}: cannot load the {what}: {reason or type(error).__name__}; check the path or name"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own progress bars and advice: stderr is for ours."""
    transformers_logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
