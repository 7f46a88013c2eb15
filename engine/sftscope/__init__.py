"""See what fine-tuning does to a language model: which word interactions it removes, keeps and invents.

The public interface, none of which imports PyTorch before it is used:

``open_run(path)`` a stored run: its verdict, trends, interactions and raw scores as NumPy columns ·
``decompose(scores, zeta)`` the sparsest AND-OR interactions of any 2^n scores, certified ·
``report(run, out)`` writes the report of a run ·
``SftscopeCallback(trainer, …)`` follows anyone's training; needs the extra `engine` ·
``SftscopeError`` what all of these raise for a user's mistake · ``__version__``.

All other modules are internal and may change with every release.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sftscope.api import Run as Run
    from sftscope.api import open_run as open_run
    from sftscope.api import report as report
    from sftscope.decomposition import decompose as decompose
    from sftscope.foundation.errors import SftscopeError as SftscopeError
    from sftscope.monitor import SftscopeCallback as SftscopeCallback

    __version__: str

# what is imported when it is first asked for: `import sftscope` takes a millisecond
_FOUND_IN = {
    "Run": "sftscope.api",
    "SftscopeCallback": "sftscope.monitor",
    "SftscopeError": "sftscope.foundation.errors",
    "decompose": "sftscope.decomposition",
    "open_run": "sftscope.api",
    "report": "sftscope.api",
}
__all__ = ["Run", "SftscopeCallback", "SftscopeError", "__version__", "decompose", "open_run", "report"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sftscope")
    if name not in _FOUND_IN:
        raise AttributeError(f"module 'sftscope' has no attribute {name!r}")
    return getattr(import_module(_FOUND_IN[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
