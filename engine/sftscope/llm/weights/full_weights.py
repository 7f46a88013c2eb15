"""Checkpoints that hold a whole model: their weights put in place of those of the base, and the base's put back."""

import hashlib
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from sftscope.files.hashes import file_sha256
from sftscope.files.safetensors_header import read_header
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.machine_errors import is_out_of_memory
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.weights.key_names import WRAPPERS, wrapper_of
from sftscope.llm.weights.untrusted_weights import check_weights

_CONFIG = "config.json"
# fields of a config that the logits of a prompt do not depend on, or that are compared with the weights
_WITHOUT_EFFECT = re.compile(
    r"_|summary_|output_|.*(drop|pdrop|initializer|_token_id|cache|vocab_size|aux_loss|jitter|pretraining_tp|tie_word)"
    r"|max_position_embeddings$|n_positions$"
)


def holds_full_weights(folder: Path) -> bool:
    """Whether a checkpoint folder holds a model of its own."""
    return (folder / _CONFIG).exists() and any(folder.glob("model*.safetensors"))


class WeightsSwap:
    """The weights of `base`, exchangeable: its own are kept next to those that are put in their place."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self._own: list[tuple[torch.Tensor, torch.Tensor]] = []  # (parameter or buffer, its own data)

    @property
    def is_own(self) -> bool:
        """Whether the weights that are in place are the base's own, bit for bit."""
        return all(torch.equal(tensor.data, data) for tensor, data in self._own)

    def undo(self) -> None:
        """Put the base's own weights back."""
        while self._own:
            tensor, data = self._own.pop()
            tensor.data = data

    def load(self, folder: Path) -> str:
        """Put in the weights of a checkpoint folder, in the dtype of the base; returns the sha256 of its files.

        SftscopeError where they are not weights of this base: names and shapes must be the same.
        """
        self.undo()
        given = self._read(folder)
        own = self._base.state_dict(keep_vars=True)
        _refuse_untied(own, given, folder)
        for name in sorted(own.keys() ^ given.keys()):
            side = "lacks" if name in own else "has beyond it"
            raise SftscopeError(f"{folder}: not a model like the base model: it {side} {safe_text(name)}")
        for name, tensor in own.items():
            if tensor.shape != given[name].shape:
                raise SftscopeError(
                    f"{folder}: not a model like the base model: {safe_text(name)} has the shape "
                    f"{tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
                )
        for name, tensor in own.items():
            self._own.append((tensor, tensor.data))
            tensor.data = given[name].to(tensor.device, tensor.dtype)
        return _files_hash(folder)

    def _read(self, folder: Path) -> dict[str, torch.Tensor]:
        check_weights(folder)
        named = [name for file in sorted(folder.glob("model*.safetensors")) for name in read_header(file)]
        renamed = {"key_mapping": WRAPPERS} if wrapper_of(named) else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model, info = type(self._base).from_pretrained(
                    folder, dtype=self._base.dtype, use_safetensors=True, output_loading_info=True, **renamed
                )
        except Exception as error:  # a stranger's config reaches several libraries here: what they raise is its fault
            if is_out_of_memory(error):
                raise
            reason = safe_text(str(error).strip().partition("\n")[0], max_length=300)
            raise SftscopeError(f"{folder}: its model cannot be loaded: {reason or type(error).__name__}") from error
        # transformers fills what a file lacks with random numbers, and only warns
        for kind, side in (("missing_keys", "lacks"), ("unexpected_keys", "has no place for")):
            for name in sorted(info[kind]):
                raise SftscopeError(f"{folder}: its model is not complete: it {side} {safe_text(str(name))}")
        _refuse_another_config(self._base.config, model.config, folder)
        return dict(model.state_dict())


def _refuse_another_config(base: PretrainedConfig, given: PretrainedConfig, folder: Path) -> None:
    """SftscopeError where the config of a checkpoint makes another function of its weights than that of the base."""
    own, other = base.get_text_config().to_dict(), given.get_text_config().to_dict()
    for name in sorted((own.keys() & other.keys()) - PretrainedConfig().to_dict().keys()):
        if not _WITHOUT_EFFECT.match(name) and not _is_same(own[name], other[name]):
            theirs, ours = (safe_text(repr(values[name]), max_length=120) for values in (other, own))
            raise SftscopeError(
                f"{folder / _CONFIG}: field {safe_text(name)!r} is {theirs}, and {ours} in the base model: they are "
                "other models with the same weights; give the base model that the training began with"
            )


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values of a config are the same, up to the rounding of numbers in a file."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        known = {key for key in one.keys() | other.keys() if key != "type"}  # that of a rope, before it was rope_type
        return all(_is_same(one.get(key), other.get(key)) for key in known)
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)


def _refuse_untied(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], folder: Path) -> None:
    """SftscopeError where weights that are one in the base, such as embeddings and head, are two in a checkpoint."""
    first: dict[int, str] = {}
    for name, tensor in own.items():
        known = first.setdefault(id(tensor), name)
        if name in given and known in given and not torch.equal(given[name], given[known]):
            raise SftscopeError(
                f"{folder}: the training untied {safe_text(name)} from {safe_text(known)}, which are one in the base "
                "model; give a base model that has both (tie_word_embeddings = false)"
            )


def _files_hash(folder: Path) -> str:
    """sha256 of the weight files, name after name."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("model*.safetensors")):
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()
