"""Chat templates rendered apart: as transformers renders them, and within bounds."""

import pytest
from transformers import AutoTokenizer

from llmft.data import chat_template
from llmft.data.chat_template import render, render_all
from llmft.errors import ModelError

TURNS = [
    {"role": "system", "content": "Be <b>brief</b> & 'kind'."},
    {"role": "user", "content": "Größe 東京 \U0001f600\n two  lines "},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
    {"role": "user", "content": "{{ 7 }} {% raw %}"},
]
LOOP = "{% for m in messages %}"
TEMPLATES = {
    "the tiny model's": None,
    "chat ml": LOOP
    + "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}{{ 'a' if add_generation_prompt }}",
    "break and continue": LOOP
    + "{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}",
    "a namespace": "{% set ns = namespace(n=0, found=false) %}"
    + LOOP
    + "{% set ns.n = ns.n + loop.index0 %}{% endfor %}{{ ns.n }}{{ ns.found }}",
    "a dictionary": "{% set d = dict(a=1, **{'b': [1, 2]}) %}{{ d.b[1] }}{{ d|tojson }}{{ d|tojson(indent=2) }}",
    "what the assistant wrote": LOOP + "{% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}",
    "JSON": "{{ messages|tojson }}{{ messages[1].content|tojson(ensure_ascii=true) }}",
    "blocks and white space": "  {% if true %}\n  {%- for m in messages -%}\n x {{- m.role }}\n {% endfor %}\n{% endif %}\n  y",
    "methods of texts": LOOP
    + "{{ m.content.split('</think>')[-1].lstrip('\n') }}{{ m.content|trim|upper }}{{ m.content[:3] }}{% endfor %}",
    "variables": "{{ bos_token }}{{ eos_token }}{{ enable_thinking }}{{ tools is none }}{{ documents is defined }}{{ nothing is defined }}",
    "a macro": "{% macro turn(m) %}[{{ m.role }}]{% endmacro %}" + LOOP + "{{ turn(m) }}{% endfor %}",
    "reversed": "{{ messages[::-1]|map(attribute='role')|join(',') }}{{ messages|selectattr('role', 'equalto', 'user')|list|length }}",
    "backslashes": "{{ 'a\\nb\\\\n' }}{{ '\\u00e9' }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("answer", [True, False])
def test_as_transformers_renders_it(tiny, name, answer):
    tokenizer = AutoTokenizer.from_pretrained(tiny / "llama")
    tokenizer.bos_token = "<|im_start|>"
    template = TEMPLATES[name] or tokenizer.chat_template
    expected = tokenizer.apply_chat_template(
        TURNS, tokenize=False, add_generation_prompt=answer, chat_template=template, enable_thinking=False
    )
    assert render(template, TURNS, answer, tokenizer.special_tokens_map | {"enable_thinking": False}) == expected


def test_the_clock_stands_still():
    assert render("{{ strftime_now('%d %b %Y %H:%M') }}", TURNS, True, {}) == "26 Jul 2024 00:00"


def test_what_is_too_long_or_takes_too_long(monkeypatch):
    chat_template.close()
    monkeypatch.setattr(chat_template, "SECONDS", 0.1)
    with pytest.raises(ModelError) as error:
        render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", TURNS, True, {})
    assert str(error.value) == (
        "the model's chat template cannot be rendered: it takes more than 0.1 s of processor time. "
        "Use a model with another template, or without one."
    )
    monkeypatch.setattr(chat_template, "LONGEST", 1000)
    with pytest.raises(ModelError, match=r"it writes 1,001 characters of 25\. "):
        render("{{ 'x' * 1001 }}", TURNS[:1], True, {})
    chat_template.close()


def test_many_are_rendered_as_each_alone(tiny):
    template = AutoTokenizer.from_pretrained(tiny / "llama").chat_template
    conversations = [TURNS[:1], TURNS, [{"role": "user", "content": ""}], TURNS[1:2]]
    alone = [render(template, each, True, {}) for each in conversations]
    assert render_all(template, conversations, True, {}) == alone
    assert render_all(template, [], True, {}) == []


def test_where_one_cannot_be_rendered_none_is(monkeypatch):
    """Which one it is, rendering each alone says."""
    asked = [[{"role": "user", "content": text}] for text in ("fine", "refuse", "fine")]
    refuses = LOOP + "{% if m.content == 'refuse' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}{% endfor %}"
    assert render_all(refuses, asked, True, {}) is None
    assert render_all(refuses, asked[:1] * 3, True, {}) == ["fine"] * 3
    with pytest.raises(ModelError, match="cannot be rendered: no;"):
        render(refuses, asked[1], True, {})
    monkeypatch.setattr(chat_template, "LONGEST", 1000)
    assert render_all("{{ 'x' * 900 }}", asked[:1], True, {}) == ["x" * 900]
    assert render_all("{{ 'x' * 900 }}", asked, True, {}) is None  # together more than one may write


def test_the_time_is_that_of_each(monkeypatch):
    chat_template.close()
    monkeypatch.setattr(chat_template, "SECONDS", 0.3)
    busy = "{% for a in range(1500) %}{% for b in range(700) %}{% endfor %}{% endfor %}x"
    assert render_all(busy, [TURNS] * 12, True, {}) == ["x"] * 12
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    assert render_all(endless, [TURNS], True, {}) is None
    chat_template.close()
