"""Chat templates run in a process of their own: the text is transformers' own, and a hostile one is one line."""

import signal
import subprocess
import sys
import threading

import pytest

from model_kinds import KINDS, tokenizer_of
from run_configs import write_config
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.llm.prompting import template_sandbox
from sftscope.llm.prompting.prompts import takes_system
from sftscope.preflight import inspection
from toy_llm import toy_tokenizer

TURNS = [{"role": "user", "content": "how\ue000 <a> & é\ud800"}, {"role": "assistant", "content": "good"}]
FOR_EVER = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
HOSTILE = {
    "loops for ever": (FOR_EVER, "needs over"),
    "computes for ever, deaf to signals": ("{{ 7 ** (3 * 10 ** 8) % 2 }}", "needs over"),
    "wants all memory": ("{{ 'a' * 10 ** 12 }}", "MemoryError"),
    "grows": ("{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}", ""),
    "calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    "divides by zero": ("{{ 1 / 0 }}", "division by zero"),
    "is no Jinja": ("{% if %}", "Expected an expression"),
    "refuses": ("{{ raise_exception('no \x1b[2J such role') }}", "no .* such role"),
    "reaches for Python": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|undefined"),
}


@pytest.mark.parametrize("generate", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_the_text_is_that_of_transformers(name, generate):
    tokenizer = tokenizer_of(KINDS[name])
    expected = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=generate)
    assert template_sandbox.render(tokenizer, TURNS, generate=generate) == expected


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_one_line_in_time_and_the_next_one_is_rendered(name, monkeypatch):
    template, reason = HOSTILE[name]
    monkeypatch.setattr(template_sandbox, "SECONDS", 0.1)
    monkeypatch.setattr(template_sandbox, "_LATE", {})
    tokenizer = toy_tokenizer()
    expected = template_sandbox.render(tokenizer, TURNS, generate=True)
    tokenizer.chat_template = template
    with pytest.raises(SftscopeError, match=f"chat template fails: .*{reason}.*use template = 'plain'") as said:
        template_sandbox.render(tokenizer, TURNS, generate=True)
    assert str(said.value).isprintable()
    assert template_sandbox.render(toy_tokenizer(), TURNS, generate=True) == expected


def test_a_template_that_needs_too_much_computing_is_not_tried_again(monkeypatch):
    """Each row of a data set would wait for it anew; whether it takes a system prompt is asked first."""
    monkeypatch.setattr(template_sandbox, "SECONDS", 0.1)
    monkeypatch.setattr(template_sandbox, "_LATE", {})
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = FOR_EVER
    assert not takes_system(tokenizer)
    monkeypatch.setattr(template_sandbox, "_RENDERER", None)
    with pytest.raises(SftscopeError, match=r"it needs over 0\.3 s of computing"):
        template_sandbox.render(tokenizer, TURNS, generate=True)


def test_a_run_with_such_a_template_ends_with_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(template_sandbox, "SECONDS", 0.1)
    monkeypatch.setattr(template_sandbox, "_LATE", {})
    config = write_config(tmp_path, **{'path = "toy"': 'path = "toy"\ntemplate_file = "hostile.jinja"'})
    (tmp_path / "hostile.jinja").write_text(FOR_EVER)
    with pytest.raises(SftscopeError, match=r"chat template fails: it needs over"):
        inspection.inspect(config)


def test_the_child_does_not_import_pytorch():
    """It would take seconds and hundreds of megabytes."""
    code = (
        "import sys; import sftscope.llm.prompting.template_sandbox as r; "
        "r._rendered(**r._HARMLESS); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_renderer_that_is_killed_or_stopped_is_not_the_templates_fault(monkeypatch):
    """Killed once it is replaced, Ctrl-Z is waited for; killed always it is said so, and nothing is remembered."""
    monkeypatch.setattr(template_sandbox, "SECONDS", 0.1)
    monkeypatch.setattr(template_sandbox, "_LATE", {})
    tokenizer = toy_tokenizer()
    expected = template_sandbox.render(tokenizer, TURNS, generate=True)
    renderer = template_sandbox._RENDERER
    renderer._process.kill()
    assert template_sandbox.render(tokenizer, TURNS, generate=True) == expected
    renderer._process.send_signal(signal.SIGSTOP)
    threading.Timer(0.6, renderer._process.send_signal, [signal.SIGCONT]).start()
    assert template_sandbox.render(tokenizer, TURNS, generate=True) == expected

    exchange = template_sandbox._exchange

    def killed(process, question):
        process.kill()
        return exchange(process, question)

    monkeypatch.setattr(template_sandbox, "_exchange", killed)
    with pytest.raises(NotReadError, match=r"of their own, which was ended by signal 9; run the same command again"):
        template_sandbox.render(tokenizer, TURNS, generate=True)
    with pytest.raises(NotReadError):  # not: it has no place for a system prompt
        takes_system(tokenizer)
    assert not template_sandbox._LATE
