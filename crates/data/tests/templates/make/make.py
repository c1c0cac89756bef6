"""Writes cases.json and semantics.json: what transformers makes of chats.py and constructs.py.

Run: python make.py, with transformers 5.23 and jinja2 3.1.6; the files lie in the folder above.
"""

import json
import re
from pathlib import Path

import jinja2
from chats import CASES
from constructs import CONSTRUCTS, SPANS
from transformers.utils.chat_template_utils import (
    _compile_jinja_template,
    _render_with_assistant_indices,
    render_jinja_template,
)

HERE = Path(__file__).parent.parent
GENERATION = re.compile(r"\{\%-?\s*generation\s*-?\%\}")


def without_nulls(messages):
    """As apply_chat_template does before it renders."""
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


def outcome_of_chat(source, case):
    """The text (and the spans of the generation blocks), or the words of the error."""

    def render(mask):
        texts, spans = render_jinja_template(
            [without_nulls(case["messages"])],
            tools=case.get("tools"),
            documents=case.get("documents"),
            chat_template=source,
            add_generation_prompt=case["add_generation_prompt"],
            return_assistant_tokens_mask=mask,
            **{**case["special_tokens"], **case.get("kwargs", {})},
        )
        return texts[0], spans[0] if mask else None

    try:
        text, spans = render(bool(GENERATION.search(source)))
    except jinja2.exceptions.TemplateError as e:
        return {"error": str(e)}
    assert text == render(False)[0]
    return {"expected": text} | ({"generation_spans": spans} if spans is not None else {})


def outcome_of_source(source, context):
    """What a template gives in a context, or what kind of error it ends in."""
    try:
        return {"expected": _compile_jinja_template(source).render(**context)}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}"}


def source_and_context(row):
    return (row, {}) if isinstance(row, str) else row


def write(name, rows):
    (HERE / name).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="")


def main():
    templates = {path.stem for path in HERE.glob("*.jinja")}
    assert templates == set(CASES), templates ^ set(CASES)
    chats = []
    for name in sorted(CASES):
        source = (HERE / f"{name}.jinja").read_bytes().decode()
        special_tokens, cases = CASES[name]
        for case in cases:
            row = {"template": name, **case, "special_tokens": special_tokens}
            chats.append(row | outcome_of_chat(source, row))
    write("cases.json", chats)

    constructs = []
    for topic, rows in CONSTRUCTS.items():
        for source, context in map(source_and_context, rows):
            row = {"topic": topic, "source": source, "context": context}
            constructs.append(row | outcome_of_source(source, context))
    for source, context in map(source_and_context, SPANS):
        template = _compile_jinja_template(source)
        text, spans = _render_with_assistant_indices(template, [], None, None, False, **context)
        row = {"topic": "generation spans", "source": source, "context": context}
        constructs.append(row | {"expected": text, "generation_spans": spans})
    write("semantics.json", constructs)
    print(f"{len(templates)} templates, {len(chats)} chats, {len(constructs)} constructs")


if __name__ == "__main__":
    main()
