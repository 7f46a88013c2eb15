"""transformers: its sandboxed renderer of chat templates, for a process that must not import PyTorch."""

from collections.abc import Mapping, Sequence


def rendered_template(
    template: str, messages: Sequence[Mapping[str, str]], *, generate: bool, names: Mapping[str, str]
) -> str:
    """A chat template over messages. generate: with what begins an answer; names: the special tokens by their names."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered = render_jinja_template(
        conversations=[messages], chat_template=template, add_generation_prompt=generate, **names
    )
    # transformers ≥ 5 gives (texts, places of the answers)
    return str(rendered[0][0] if isinstance(rendered, tuple) else rendered[0])
