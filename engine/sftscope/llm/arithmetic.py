"""Precisions that an LLM can be run in, and how its matrix products are computed in each.

``float32`` · ``tf32``: float32 weights, products of TF32 numbers (CUDA) · ``mixed``: float32 weights, each
product of a linear layer made of three products of bfloat16 numbers, summed in float32; everything
else, the head included, is float32 · ``bfloat16``, ``float16``: weights and all else in 16 bits.
Knows nothing of scores; which of them is exact enough is measured elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

FLOAT32 = "float32"
_HALF = ("bfloat16", "float16")
_AMPERE = (8, 0)  # the first CUDA devices with TF32 and bfloat16 products
# torch's names for what products of float32 tensors may be made of: TF32; bfloat16, or TF32 on CUDA
_TF32, _BFLOAT16 = "high", "medium"


def weights_dtype(precision: str) -> str:
    """The dtype that the weights are loaded in."""
    return precision if precision in _HALF else FLOAT32


def worth_trying(device: torch.device) -> tuple[str, ...]:
    """Reduced precisions that this kind of device may compute faster than float32.

    On CPUs three bfloat16 products, converted from float32 and back, take as long as the one of float32.
    """
    if device.type == "cpu":
        return _HALF
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _AMPERE:
        return ("float16",)
    return ("tf32", "mixed", *_HALF) if device.type == "cuda" else _HALF


class Arithmetic:
    """How the products of one model are computed; inside `active()` only, everything is as before afterwards."""

    def __init__(self, model: Any, precision: str) -> None:
        self._model = model
        self._precision = precision
        self._parts: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}

    def forget(self) -> None:
        """The weights have changed."""
        self._parts.clear()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Compute in this precision."""
        if self._precision == "tf32":
            with _products_of(_TF32):
                yield
            return
        split = self._linear_layers() if self._precision == "mixed" else []
        for layer in split:
            layer.forward = lambda x, layer=layer: self._product(layer, x)
        try:
            yield
        finally:
            for layer in split:
                del layer.forward

    def _linear_layers(self) -> list[Any]:
        head = self._model.get_output_embeddings()
        return [part for part in self._model.modules() if type(part) is torch.nn.Linear and part is not head]

    def _product(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        """x Wᵀ + bias with x = x₁ + x₂, W = W₁ + W₂, the first of each in 8 bits: x₁W₁ + x₂W₁ + x₁W₂."""
        if layer not in self._parts:
            self._parts[layer] = _split(layer.weight)
        high, low = self._parts[layer]
        flat_high, flat_low = _split(x.reshape(-1, x.shape[-1]))
        with _products_of(_BFLOAT16):  # of these three only: attention and head would lose what they gain
            out = torch.mm(flat_high, high.T)
            out.addmm_(flat_low, high.T).addmm_(flat_high, low.T)
        if layer.bias is not None:
            out += layer.bias
        return out.view(*x.shape[:-1], -1)


@contextmanager
def _products_of(numbers: str) -> Iterator[None]:
    """Products of float32 tensors made of these numbers, summed in float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(numbers)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _split(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(values rounded to bfloat16, the rest), both as float32: products of either lose little in 8 bits."""
    high = values.bfloat16().float()
    return high, values - high
