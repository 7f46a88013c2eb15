"""Models of the hub: whether it can be reached, asked once instead of after every retry of its client."""

import re
from pathlib import Path

from huggingface_hub import constants, get_session, try_to_load_from_cache

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.model_config import CONFIG

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_SECONDS = 10.0


def is_hub_name(path: str) -> bool:
    """Whether `path` can be a name of the hub: no folder or file here, and at most one slash."""
    return bool(_NAME.fullmatch(path)) and not Path(path).exists()


def refuse_unreachable(path: str) -> None:
    """SftscopeError for a hub name that is not in the cache while the hub does not answer; all else passes.

    Where it is in the cache, the client stays offline: it would try for minutes before it uses its cache.
    """
    if not is_hub_name(path) or constants.HF_HUB_OFFLINE or _answers(path):
        return
    if isinstance(try_to_load_from_cache(path, CONFIG), str):
        say(f"warning: {constants.ENDPOINT} does not answer: what is in the cache of {safe_text(path)} is used")
        constants.HF_HUB_OFFLINE = True
        return
    raise SftscopeError(
        f"{safe_text(path, max_length=200)}: no such file or folder, and as a hub name it cannot be fetched: "
        f"{constants.ENDPOINT} does not answer; check the path, or the network"
    )


def _answers(path: str) -> bool:
    url = f"{constants.ENDPOINT}/{path}/resolve/main/{CONFIG}"
    try:
        get_session().head(url, timeout=_SECONDS, follow_redirects=False)
    except Exception:  # what its client raises depends on its release: there was no answer
        return False
    return True
