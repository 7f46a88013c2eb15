"""Configs that come with sftscope, by name: a model of the paper and one of its data sets, such as gemma-3-4b-dolly.

`models/` and `data/` hold the parts: tables that do not overlap, so that the text of both is a config. Everything
else has its default, which is the paper's recipe: LoRA on all linear layers, 30 epochs, batches of 64, cosine with
warm-up. Stop earlier by max_steps, which keeps the schedule, not by fewer epochs. Relative paths start at this folder.
"""

from pathlib import Path

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

FOLDER = Path(__file__).parent


def parts(kind: str) -> tuple[str, ...]:
    """The parts of a kind, `models` or `data`, in alphabetic order."""
    return tuple(sorted(path.stem for path in (FOLDER / kind).glob("*.toml")))


def preset_names() -> tuple[str, ...]:
    """All presets, in alphabetic order."""
    return tuple(sorted(f"{model}-{data}" for model in parts("models") for data in parts("data")))


def presets_in_words() -> str:
    """All presets, in one short phrase."""
    return f"MODEL-DATA of {', '.join(parts('models'))} and {', '.join(parts('data'))}"


def find_config(config: Path) -> Path:
    """The config that is meant: `config` itself, or the preset of that name where there is no such file.

    A preset's path has its name and its folder, at which its paths start; there is no file of that name.
    """
    bare = len(config.parts) == 1 and config.suffix != ".toml" and not config.exists()
    if not bare:
        return config
    if config.name in preset_names():
        return FOLDER / f"{config.name}.toml"
    raise SftscopeError(
        f"{safe_text(str(config), max_length=200)}: no such config file, and no preset of that name; "
        f"presets are {', '.join(preset_names())}"
    )


def is_preset(config: Path) -> bool:
    """Whether this is the path of a preset, as `find_config` returns it."""
    return config.parent == FOLDER and config.suffix == ".toml" and config.stem in preset_names()


def title(config: Path) -> str:
    """A config for messages: the path of its file, or which preset."""
    return f"preset {config.stem}" if is_preset(config) else str(config)


def preset_text(config: Path) -> str:
    """The TOML of a preset, both parts; empty where `config` is none."""
    if not is_preset(config):
        return ""
    model, _, data = config.stem.rpartition("-")
    files = FOLDER / "models" / f"{model}.toml", FOLDER / "data" / f"{data}.toml"
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
