"""Cholesky in place and outside Python's lock, so that threads share the cores.

scipy's own wrappers hold the global interpreter lock during a factorisation. The LAPACK that scipy ships is
also there as C function pointers (`scipy.linalg.cython_lapack`); called through ctypes it runs without the lock.
"""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import Floats


class BreakdownError(ArithmeticError):
    """The matrix is not positive definite in floating point."""


def lapack() -> Any:
    """scipy's LAPACK wrappers."""
    try:
        from scipy.linalg import lapack as routines
    except ImportError as error:
        raise SftscopeError("the decomposition needs scipy: pip install 'sftscope[solver]'") from error
    return routines


@lru_cache(maxsize=8)
def _pointer(name: str, n_arguments: int) -> Callable[..., None]:
    """The LAPACK routine `name`; every argument of it is an address."""
    lapack()
    from scipy.linalg import cython_lapack

    pointers: Any = cython_lapack.__pyx_capi__
    capsule = pointers[name]
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address_of = ctypes.pythonapi.PyCapsule_GetPointer
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    signature = name_of(capsule)
    if not signature.startswith(b"void (char *, int *"):  # no assert, which python -O drops: memory depends on it
        raise TypeError(f"LAPACK's {name} is {signature.decode()}")
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)(address_of(capsule, signature))


_LOWER = ctypes.c_char(b"L")


def factor(matrix: Floats) -> Floats:
    """Cholesky factor from the upper triangle of a C-ordered `matrix`, in its place; what lies below is not touched.

    BreakdownError where it is not positive definite.
    """
    if not matrix.flags.c_contiguous:
        raise ValueError("expected a C-ordered matrix")
    # LAPACK reads columns: to it the data lie in the lower triangle
    size, info = ctypes.c_int(len(matrix)), ctypes.c_int()
    n = ctypes.byref(size)
    routine = _pointer("dpotrf", 5)
    routine(ctypes.byref(_LOWER), n, matrix.ctypes.data, n, ctypes.byref(info))
    if info.value != 0:
        raise BreakdownError
    return matrix


def solve(cholesky: Floats, right: Floats) -> Floats:
    """The solution of A y = right, (2^n,), from the factor of A."""
    out = np.array(right, dtype=np.float64)
    size, one, info = ctypes.c_int(len(cholesky)), ctypes.c_int(1), ctypes.c_int()
    n = ctypes.byref(size)
    arguments = (n, ctypes.byref(one), cholesky.ctypes.data, n, out.ctypes.data, n, ctypes.byref(info))
    _pointer("dpotrs", 8)(ctypes.byref(_LOWER), *arguments)
    if info.value != 0:
        raise ValueError(f"dpotrs refused its argument {-info.value}")
    return out


def conjugate_gradients(product: Callable[[Floats], Floats], right: Floats, accuracy: float, most_steps: int) -> Floats:
    """y with ‖A y − right‖₂ ≤ accuracy · ‖right‖₂, or what `most_steps` reach; A is known by its product."""
    y, left = np.zeros_like(right), right
    along, size = right, float(right @ right)
    aim = accuracy**2 * size
    for _ in range(most_steps):
        if size <= aim:
            break
        image = product(along)
        curvature = float(along @ image)
        if not curvature > 0.0:  # A is singular there
            break
        length = size / curvature
        y = y + length * along
        left = left - length * image
        before, size = size, float(left @ left)
        along = left + (size / before) * along
    return y
