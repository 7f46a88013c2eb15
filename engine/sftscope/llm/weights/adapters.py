"""What training changed, on a base that stays loaded: adapters and full weights, exchanged and checked.

PEFT and transformers only warn of keys that are missing or left over; here both are errors.
"""

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file

from sftscope.files.hashes import file_sha256
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.machine_errors import is_out_of_memory
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.weights.adapter_config import CONFIG, PREFIX, WEIGHTS, Adapter, read_adapter
from sftscope.llm.weights.full_weights import WeightsSwap, holds_full_weights
from sftscope.llm.weights.key_names import without_wrappers
from sftscope.llm.weights.untrusted_weights import refuse_adapter_and_model
from sftscope.llm.weights.vocabulary import SavedEmbeddings
from sftscope.llm.weights.weights_content import BASE, adapter_content

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
    is folded into the weights, always from the untouched ones, which are kept next to them: a step's
    model does not depend on the steps before it. Coarser weights would round a small adapter away, and an
    adapted layer that shares its weights, as embeddings do with a tied head, would change the other one too.
    """

    def __init__(self, base: Any) -> None:
        self._base = base
        self._wrapped: Any = None
        self._kind: tuple[Any, ...] | None = None  # of the adapters, which all steps share
        self._untouched: list[tuple[Any, torch.Tensor, torch.Tensor | None]] = []
        self._swap = WeightsSwap(base)
        self._content = BASE
        self._embeddings = SavedEmbeddings(base)

    @property
    def model(self) -> Any:
        """The causal LM with the adapter's layers in place."""
        return self._base

    @property
    def content(self) -> str:
        """Which weights are in place, as `weights_content` has it: equal for equal ones, `BASE` for the base's."""
        return self._content

    def clear(self) -> None:
        """Make the model the plain base again."""
        self._content = BASE
        self._swap.undo()
        if self._wrapped is not None:
            self._unfold()
            self._embeddings.undo()
            self._wrapped.base_model.disable_adapter_layers()

    def load(self, folder: Path) -> str:
        """Put in the adapter, or the full weights, of a checkpoint folder; returns the sha256 of what was read.

        Raises SftscopeError where it does not fit the base.
        """
        refuse_adapter_and_model(folder)
        if not (folder / CONFIG).exists() and holds_full_weights(folder):
            self.clear()
            found = self._swap.load(folder)
            self._content = BASE if self._swap.is_own else found
            return found
        self._swap.undo()
        adapter = read_adapter(folder)
        if self._wrapped is None:
            self._wrapped = self._wrap(adapter, folder)
            self._kind = adapter.kind
        elif adapter.kind != self._kind:
            raise SftscopeError(f"{folder}: its adapter has another configuration than the steps before it")
        state = _read_weights(folder / WEIGHTS)
        self._unfold()
        self._embeddings.undo()  # before the content is compared with the base's own
        self._content = adapter_content(state, self._base)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._embeddings.take(state, adapter, folder)
            _check_fit(get_peft_model_state_dict(self._wrapped, save_embedding_layers=False), state, folder)
            set_peft_model_state_dict(self._wrapped, state)
        self._wrapped.base_model.enable_adapter_layers()
        self._wrapped.eval()
        if self._base.dtype == torch.float32 and not getattr(self._base, "is_quantized", False) and not self._shares():
            self._fold(folder)
        return file_sha256(folder / WEIGHTS)

    def _shares(self) -> bool:
        """Whether an adapted layer has its weight in common with one that is not, such as a tied output head."""
        weights = [
            module.weight for module in self._base.modules() if type(module) in (torch.nn.Embedding, torch.nn.Linear)
        ]
        adapted = [module.get_base_layer() for module in self._base.modules() if isinstance(module, LoraLayer)]
        return any(sum(weight is layer.weight for weight in weights) > 1 for layer in adapted)

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
        except RuntimeError as error:
            self._unfold()
            if is_out_of_memory(error):
                raise
            reason = safe_text(str(error), max_length=300)
            raise SftscopeError(f"{folder}: the adapter cannot be added to the base model: {reason}") from error

    def _unfold(self) -> None:
        """Put the untouched weights back."""
        while self._untouched:
            module, weight, bias = self._untouched.pop()
            layer = module.get_base_layer()
            layer.weight.data = weight
            if bias is not None:
                layer.bias.data = bias
            module.merged_adapters.clear()

    def _wrap(self, adapter: Adapter, folder: Path) -> Any:
        _check_places(self._base, adapter, folder)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return get_peft_model(self._base, _peft_config(adapter))
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            reason = safe_text(str(error), max_length=300)
            raise SftscopeError(f"{folder}: the adapter does not fit the base model: {reason}") from error


def _peft_config(adapter: Adapter) -> LoraConfig:
    """The adapter for PEFT: every value checked, its modules by name, no pattern but names of ours."""
    by_names = adapter.targets is not None and not adapter.excluded and adapter.layers is None
    return LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        # PEFT also asks this list whether embeddings were saved
        target_modules=list(adapter.targets or ()) if by_names else sorted(adapter.ranks),
        rank_pattern={re.escape(name): rank for name, rank in adapter.ranks.items() if rank != adapter.r},
        alpha_pattern={re.escape(name): alpha for name, alpha in adapter.alphas.items() if alpha != adapter.alpha},
        modules_to_save=list(adapter.modules) or None,
        inference_mode=True,
        **adapter.flags,
    )


def _check_places(base: Any, adapter: Adapter, folder: Path) -> None:
    """SftscopeError unless base and adapter fit by names and shapes, before anything of these sizes is made."""
    modules = dict(base.named_modules())
    wanted = {name for name in modules if adapter.selects(name)} if adapter.targets is not None else set(adapter.ranks)
    if adapter.every_linear:
        wanted |= {name for name in linear_modules(base) if not adapter.saves(name)}
    for name in sorted(wanted ^ adapter.ranks.keys()):
        raise _no_fit(folder, f"{PREFIX}{name}.lora_A.weight", lacks=name in wanted)
    for name in sorted(adapter.ranks):
        if name not in modules:
            raise _no_fit(folder, f"{PREFIX}{name}.lora_A.weight", lacks=False)
        for key, shape in _lora_shapes(modules[name], name, adapter.ranks[name]).items():
            _check_shape(adapter, key, shape, folder)
    for part in adapter.modules:
        for name in (name for name in modules if name.endswith(part)):
            if name != part and not name.endswith(f".{part}"):
                raise SftscopeError(
                    f"{folder / CONFIG}: field 'modules_to_save': expected whole names of modules, got {part!r}, which "
                    f"{safe_text(name, max_length=120)} ends with"
                )
            for key, value in modules[name].named_parameters():
                _check_shape(adapter, f"{PREFIX}{name}.{key}", tuple(value.shape), folder)


def _lora_shapes(module: Any, name: str, rank: int) -> dict[str, tuple[int, int]]:
    """The shapes of the LoRA tensors on a module, by their names in the weights; empty for a module of another kind."""
    place = f"{PREFIX}{name}"
    if isinstance(module, torch.nn.Embedding):
        return {
            f"{place}.lora_embedding_A": (rank, module.num_embeddings),
            f"{place}.lora_embedding_B": (module.embedding_dim, rank),
        }
    if type(module).__name__ == "Conv1D":
        size_in, size_out = module.weight.shape
    elif hasattr(module, "in_features") and hasattr(module, "out_features"):
        size_in, size_out = module.in_features, module.out_features
    else:
        return {}
    return {f"{place}.lora_A.weight": (rank, size_in), f"{place}.lora_B.weight": (size_out, rank)}


def _check_shape(adapter: Adapter, key: str, shape: tuple[int, ...], folder: Path) -> None:
    if key not in adapter.tensors:
        raise _no_fit(folder, key, lacks=True)
    if adapter.tensors[key].shape != shape:
        raise _other_shape(folder, key, adapter.tensors[key].shape, shape)


def _no_fit(folder: Path, key: str, *, lacks: bool) -> SftscopeError:
    subject, side = ("the adapter", "lacks") if lacks else ("the base model", "has no place for")
    return SftscopeError(f"{folder}: the adapter does not fit the base model: {subject} {side} {safe_text(key)}")


def _other_shape(folder: Path, key: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> SftscopeError:
    return SftscopeError(
        f"{folder}: the adapter does not fit the base model: {safe_text(key)} has the shape {shape}, "
        f"expected {expected}"
    )


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return without_wrappers(load_file(path), path)
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such file; only safetensors adapters are read") from None
    except (SafetensorError, OSError) as error:
        raise SftscopeError(f"{path}: damaged safetensors file: {safe_text(str(error))}") from None


def _check_fit(expected: dict[str, torch.Tensor], state: dict[str, torch.Tensor], folder: Path) -> None:
    """Same keys, same shapes."""
    for name in sorted(expected.keys() ^ state.keys()):
        raise _no_fit(folder, name, lacks=name in expected)
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            raise _other_shape(folder, name, tuple(state[name].shape), tuple(tensor.shape))
