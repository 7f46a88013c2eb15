"""Vocabularies that grew in training: the base gets the rows of its checkpoints, and takes the embeddings they hold.

New tokens, a padded table or another size make a training resize the embeddings of its base. Step 0 is the base
resized in the same way. What its new rows were when the training began is known from no file: they are the mean of
the old ones, in the embeddings and in the output head, so that step 0 is the same on every machine.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sftscope.files.json_text import read_json_object
from sftscope.files.safetensors_header import TensorEntry, read_header
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.weights.adapter_config import PREFIX, Adapter
from sftscope.llm.weights.key_names import without_wrappers

# how PEFT writes the weight of a module that it wraps: LoRA on it, trained tokens, the module trained itself
_WHOLE = (".weight", ".base_layer.weight", ".token_adapter.base_layer.weight")
_BESIDES = (".modules_to_save.weight", ".original_module.weight")  # written next to `.weight`, which is the trained one
_MOST_ROWS = 2**21  # of a config alone, which nothing backs
_DELTA = (".token_adapter.trainable_tokens_delta", ".trainable_tokens_delta")


def fit_vocabulary(model: Any, checkpoints: Iterable[Path]) -> str:
    """Give `model` as many embeddings as the checkpoints of its training have; returns what to say of it, or "".

    A checkpoint that does not tell is passed over. As much is allotted as its weights really hold.
    """
    name, module = _embedding(model, model.get_input_embeddings())
    before = module.weight.shape[0]
    rows = next((found for folder in checkpoints if (found := _rows(folder, name, module.weight.shape[1]))), before)
    if rows == before:
        return ""
    means = [_mean(weight) for weight in _tables(model)]
    with torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(rows, mean_resizing=False)
    if rows > before:
        with torch.no_grad():
            for weight, mean in zip(_tables(model), means, strict=True):
                weight[before:] = mean.to(weight.dtype)
    model.requires_grad_(False)
    new = "the new rows are the mean of the others" if rows > before else "the last rows are left out"
    return (
        f"the checkpoints have {rows:,} embeddings, the base model {before:,}: step 0 is the base with {rows:,}, {new}"
    )


def refuse_without_embedding(model: Any, tokenizer: Any, texts: Iterable[tuple[str, Sequence[int]]]) -> None:
    """SftscopeError for a token that `model` has no embedding of. texts: where each is from, and its token ids."""
    rows = model.get_input_embeddings().weight.shape[0]
    for place, ids in texts:
        token = max(ids, default=0)
        if token >= rows:
            shown = safe_text(repr(tokenizer.convert_ids_to_tokens(token)), max_length=60)
            raise SftscopeError(
                f"{place}: the token {shown} has the id {token}, and the model has {rows:,} embeddings: it is not the "
                "model of this tokenizer; an adapter for added tokens has to hold their embeddings (PEFT saves them "
                "with save_embedding_layers=True)"
            )


class SavedEmbeddings:
    """The embeddings and the output head of `base`, exchangeable for those that an adapter's weights hold."""

    def __init__(self, base: Any) -> None:
        head = base.get_output_embeddings()
        modules = [base.get_input_embeddings(), *([] if head is None else [head])]
        self._modules = dict(_embedding(base, module) for module in modules)
        self._own: list[tuple[Any, torch.Tensor]] = []

    def undo(self) -> None:
        """Put the base's own back."""
        while self._own:
            weight, data = self._own.pop()
            weight.data = data

    def take(self, state: dict[str, torch.Tensor], adapter: Adapter, folder: Path) -> None:
        """Put in what `state` holds of embeddings and head, and take it out of `state`.

        SftscopeError where shapes or rows do not fit the base, or a head that shares its weights would get others.
        """
        taken: dict[int, tuple[str, torch.Tensor]] = {}
        for name, module in self._modules.items():
            value = self._value(name, module.weight, state, adapter, folder)
            if value is None:
                continue
            other = taken.get(id(module.weight))
            if other is not None and not torch.equal(other[1], value):
                raise SftscopeError(
                    f"{folder}: the adapter does not fit the base model: it holds other weights for {name} than for "
                    f"{other[0]}, and the base model has one for both"
                )
            taken[id(module.weight)] = (name, value)
            if other is None:
                self._own.append((module.weight, module.weight.data))
                module.weight.data = value

    @staticmethod
    def _value(
        name: str, weight: torch.Tensor, state: dict[str, torch.Tensor], adapter: Adapter, folder: Path
    ) -> torch.Tensor | None:
        place = f"{PREFIX}{name}"
        for ending in _BESIDES:
            state.pop(place + ending, None)
        whole = None
        if not adapter.saves(name):  # else PEFT reads it
            for ending in _WHOLE:
                whole = state.pop(place + ending, whole)
        delta = None
        for ending in _DELTA:
            delta = state.pop(place + ending, delta)
        if whole is None and delta is None:
            return None
        if whole is not None and whole.shape != weight.shape:
            raise _wrong_shape(folder, f"{name}.weight", tuple(whole.shape), tuple(weight.shape))
        value = (weight.data if whole is None else whole).to(weight.device, weight.dtype, copy=True)
        if delta is not None:
            rows = adapter.tokens[name]
            if max(rows, default=-1) >= len(weight) or delta.shape[1:] != weight.shape[1:]:
                expected = (len(rows), *weight.shape[1:])
                most = f"{tuple(delta.shape)}, for rows up to {max(rows)}"
                raise _wrong_shape(folder, f"{name}.trainable_tokens_delta", most, f"{expected} below {len(weight)}")
            value[list(rows)] = delta.to(value.device, value.dtype)
        return value


def _wrong_shape(folder: Path, name: str, shape: object, expected: object) -> SftscopeError:
    return SftscopeError(
        f"{folder}: the adapter does not fit the base model: {safe_text(name)} has the shape {shape}, "
        f"expected {expected}"
    )


def _embedding(model: Any, wanted: Any) -> tuple[str, Any]:
    return next((name, module) for name, module in model.named_modules() if module is wanted)


def _tables(model: Any) -> list[torch.Tensor]:
    """What has a row per token: embeddings, per-layer embeddings, head and its bias; shared ones as often as named."""
    head, body = model.get_output_embeddings(), getattr(model.base_model, "language_model", model.base_model)
    modules = [model.get_input_embeddings(), *([] if head is None else [head])]
    rows = modules[0].weight.shape[0]
    found = [module.weight for module in modules]
    if getattr(head, "bias", None) is not None:
        found.append(head.bias)
    per_layer = getattr(body, "embed_tokens_per_layer", None)
    if per_layer is not None and per_layer.weight.shape[0] == rows:
        found.append(per_layer.weight)
    return found


def _mean(weight: torch.Tensor) -> torch.Tensor:
    return weight.data.sum(dim=0, dtype=torch.float64) / weight.shape[0]


def _rows(folder: Path, name: str, width: int) -> int | None:
    """Rows of the embeddings `name` in the weights of a checkpoint, or as its config has them; None: not known."""
    wanted = {f"{PREFIX}{name}{ending}" for ending in (*_WHOLE, *_BESIDES)} | {f"{name}.weight"}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            header = without_wrappers(read_header(file), file)
            found = _rows_in(header, wanted, f"{PREFIX}{name}.lora_embedding_A", width)
            if found:
                return found
        config = read_json_object(folder / "config.json")  # of a copy whose weights were dropped
    except (OSError, SftscopeError):
        return None  # whoever loads it says what is wrong
    if any(folder.glob("*.safetensors")):
        return None
    rows = config.get("vocab_size")
    return rows if type(rows) is int and 0 < rows <= _MOST_ROWS else None


def _rows_in(header: Mapping[str, TensorEntry], wanted: set[str], lora: str, width: int) -> int | None:
    for key in wanted & header.keys():
        shape = header[key].shape
        if len(shape) == 2 and shape[1] == width and shape[0]:
            return int(shape[0])
    shape = header[lora].shape if lora in header else ()
    return int(shape[1]) if len(shape) == 2 and shape[1] else None
