"""What training changed, on a base that stays loaded: adapters and full weights, exchanged and checked.

PEFT and transformers only warn of keys that are missing or left over; here both are errors.
"""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file

from sftscope.errors import SftscopeError
from sftscope.llm.full_weights import WeightsSwap, holds_full_weights
from sftscope.llm.weight_files import ADAPTER_CONFIG as CONFIG
from sftscope.llm.weight_files import ADAPTER_WEIGHTS as WEIGHTS
from sftscope.llm.weight_files import refuse_adapter_and_model
from sftscope.text import safe_text

# GPT-2 keeps its linear layers as transposed Conv1D; the other two are those of bitsandbytes
_LINEAR = ("Linear", "Conv1D", "Linear4bit", "Linear8bitLt")
_NOT_TEXT = ("vision_tower", "vision_model", "visual", "multi_modal_projector", "audio_tower")


def linear_modules(model: Any) -> list[str]:
    """Names of all linear layers but the output head and those that see images or sound: what LoRA is put on."""
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if type(module).__name__ in _LINEAR and module is not head and not set(name.split(".")) & set(_NOT_TEXT)
    ]


def new_adapter(
    model: Any, *, rank: int, alpha: float, dropout: float, rslora: bool = False, dora: bool = False
) -> Any:
    """`model` wrapped with a fresh LoRA adapter on all linear layers; the adapter is float32."""
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_rslora=rslora,
        use_dora=dora,
        target_modules=linear_modules(model),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(model, config)


class AdapterSlot:
    """A base model whose adapter, or all of whose weights, can be exchanged; `model` is the plain causal LM to call.

    The first adapter decides ranks and modules; each next one must have the same. On a float32 base it
    is folded into the weights, always from the untouched ones, which are kept beside them: a step's
    model does not depend on the steps before it. Coarser weights would round a small adapter away.
    """

    def __init__(self, base: Any) -> None:
        self._base = base
        self._wrapped: Any = None
        self._config: dict[str, Any] | None = None
        self._untouched: list[tuple[Any, torch.Tensor, torch.Tensor | None]] = []
        self._swap = WeightsSwap(base)

    @property
    def model(self) -> Any:
        """The causal LM with the adapter's layers in place."""
        return self._base

    def clear(self) -> None:
        """Make the model the plain base again."""
        self._swap.undo()
        if self._wrapped is not None:
            self._unfold()
            self._wrapped.base_model.disable_adapter_layers()

    def load(self, folder: Path) -> str:
        """Put in the adapter, or the full weights, of a checkpoint folder; returns the sha256 of what was read.

        Raises SftscopeError where it does not fit the base.
        """
        refuse_adapter_and_model(folder)
        if not (folder / CONFIG).exists() and holds_full_weights(folder):
            self.clear()
            return self._swap.load(folder)
        self._swap.undo()
        config = _read_config(folder)
        relevant = {
            # PEFT writes sets, such as target_modules, in an order that changes from process to process
            key: sorted(value, key=str) if isinstance(value, list) else value
            for key, value in config.items()
            if key != "base_model_name_or_path"
        }
        if self._wrapped is None:
            self._wrapped = self._wrap(folder)
            self._config = relevant
        elif relevant != self._config:
            raise SftscopeError(f"{folder}: its adapter has another configuration than the steps before it")
        state = _read_weights(folder / WEIGHTS)
        self._unfold()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check_fit(get_peft_model_state_dict(self._wrapped), state, folder)
            set_peft_model_state_dict(self._wrapped, state)
        self._wrapped.base_model.enable_adapter_layers()
        self._wrapped.eval()
        if self._base.dtype == torch.float32 and not getattr(self._base, "is_quantized", False):
            self._fold(folder)
        return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()

    def _fold(self, folder: Path) -> None:
        """Add the adapter to new weights; the untouched ones stay as they are."""
        for module in self._base.modules():
            if isinstance(module, LoraLayer):
                layer = module.get_base_layer()
                bias = getattr(layer, "bias", None)
                self._untouched.append((module, layer.weight.data, None if bias is None else bias.data))
        try:
            self._wrapped.merge_adapter(safe_merge=True)
        except ValueError as error:
            self._unfold()
            raise SftscopeError(f"{folder}: the adapter holds numbers that are not finite") from error

    def _unfold(self) -> None:
        """Put the untouched weights back."""
        while self._untouched:
            module, weight, bias = self._untouched.pop()
            layer = module.get_base_layer()
            layer.weight.data = weight
            if bias is not None:
                layer.bias.data = bias
            module.merged_adapters.clear()

    def _wrap(self, folder: Path) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                config = LoraConfig.from_pretrained(str(folder))
                config.inference_mode = True
                return get_peft_model(self._base, config)
        except (ValueError, TypeError, KeyError) as error:
            reason = safe_text(str(error), max_length=300)
            raise SftscopeError(f"{folder}: the adapter does not fit the base model: {reason}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such file; expected a PEFT adapter folder") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SftscopeError(f"{path}: cannot be read: {error}") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise SftscopeError(f"{path}: field 'peft_type': expected LORA, got {safe_text(repr(kind))}")
    return dict(config)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such file; only safetensors adapters are read") from None
    except (SafetensorError, OSError) as error:
        raise SftscopeError(f"{path}: damaged safetensors file: {safe_text(str(error))}") from None


def _check_fit(expected: dict[str, torch.Tensor], state: dict[str, torch.Tensor], folder: Path) -> None:
    """Same keys, same shapes."""
    for name in sorted(expected.keys() ^ state.keys()):
        side = "lacks" if name in expected else "has no place for"
        subject = "the adapter" if name in expected else "the base model"
        raise SftscopeError(f"{folder}: the adapter does not fit the base model: {subject} {side} {safe_text(name)}")
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            raise SftscopeError(
                f"{folder}: the adapter does not fit the base model: {safe_text(name)} has the shape "
                f"{tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
            )
