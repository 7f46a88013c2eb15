"""Configs that come with sftscope, by name: the paper's models and data sets. A preset is a file like any other."""

from pathlib import Path

from sftscope.errors import SftscopeError
from sftscope.text import safe_text

FOLDER = Path(__file__).parent


def preset_names() -> tuple[str, ...]:
    """All presets, in alphabetic order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def find_config(config: Path) -> Path:
    """The config file that is meant: `config` itself, or the preset of that name where there is no such file."""
    bare = len(config.parts) == 1 and config.suffix != ".toml" and not config.exists()
    if not bare:
        return config
    if config.name in preset_names():
        return FOLDER / f"{config.name}.toml"
    raise SftscopeError(
        f"{safe_text(str(config), max_length=200)}: no such config file, and no preset of that name; "
        f"presets are {', '.join(preset_names())}"
    )
