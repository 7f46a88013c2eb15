"""The embedded demo: a small model, data with planted word patterns, and probes, all of our own making.

`pretrain` and `grammar` make the files next to this module; `run_demo` runs the whole job on them.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def run_demo(out: Path) -> None:
    """Train and extract the demo into the run folder `out`, without network."""
    from sftscope.runs import pipeline

    pipeline.run(FOLDER / "config.toml", out)
