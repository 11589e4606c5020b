#!/usr/bin/env python3
"""Renders chat templates with Python's Jinja2, set up as Hugging Face transformers does, into crates/text/tests/goldens/chat.json.

usage: template_goldens.py [MODEL.gguf ...]     the models' own templates join those of tools/templates and the built-in ones

Needs jinja2 and llama_cpp (and gguf for models). The Rust test must produce the same bytes.
"""
import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOW = 1_721_996_130  # 2024-07-26 12:15:30 UTC
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


class AssistantTracker(jinja2.ext.Extension):
    """{% generation %} blocks: a scope that prints its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[AssistantTracker, jinja2.ext.loopcontrols]
    )

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(f)
    return env


def m(role, content, **more):
    return {"role": role, "content": content, **more}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "tells the weather\nof a town",
            "parameters": {
                "type": "object",
                "properties": {
                    "town": {"type": "string", "description": "the town's name, e.g. \"Zürich\""},
                    "days": {"type": "integer"},
                    "hours": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["town"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "the time", "parameters": {"type": "object", "properties": {}, "required": []}}},
]
CALL = {"type": "function", "id": "abcdefghi", "function": {"name": "get_weather", "arguments": {"town": "Zürich", "days": 2, "f": 0.5}}}
FLOATS = {
    "type": "function",
    "id": "abcdefghi",
    "function": {"name": "get_weather", "arguments": {"big": 1e16, "small": 1e-05, "list": [1e22, 0.1, -2.5e-07], "map": {"x": 1e300}}},
}

CONVERSATIONS = {
    "one": ([m("user", "What is the capital of France?")], {}),
    "system": ([m("system", " Be brief. "), m("user", "Hi")], {}),
    "turns": ([m("user", "Hi"), m("assistant", "Hello!  "), m("user", "  How are\nyou? ")], {}),
    "long": (
        [m("system", "S"), m("user", "1"), m("assistant", "<think>\nhm\n</think>\n\ntwo"), m("user", "3"), m("assistant", "4"), m("user", "5")],
        {},
    ),
    "unicode": ([m("system", "日本語 🙂"), m("user", "e\u0301 <b>&amp; \"q\" 'a' \\ \t {{ x }} {% if %}")], {}),
    "empty": ([m("user", "")], {}),
    "ends_with_answer": ([m("user", "a"), m("assistant", "b")], {}),
    "two_users": ([m("user", "a"), m("user", "b")], {}),
    "tools": (
        [m("user", "Weather?"), m("assistant", "", tool_calls=[CALL]), m("tool", "{\"sun\": true}", tool_call_id="abcdefghi"), m("assistant", "Sun."), m("user", "Thanks")],
        {"tools": TOOLS},
    ),
    "floats": ([m("user", "Weather?"), m("assistant", "", tool_calls=[FLOATS]), m("tool", "1e16", tool_call_id="abcdefghi")], {"tools": TOOLS}),
    "tools_first": ([m("system", "S"), m("user", "Weather?")], {"tools": TOOLS}),
    "null": ([m("user", "Weather?"), m("assistant", None, tool_calls=[CALL]), m("tool", "sun", tool_call_id="abcdefghi"), m("user", "Thanks")], {"tools": TOOLS}),
    "documents": ([m("user", "Sum up")], {"documents": [{"text": "first"}, {"text": "second"}]}),
    "no_thinking": ([m("user", "Hi")], {"enable_thinking": False}),
    "parts": ([m("user", [{"type": "text", "text": "What is this? "}, {"type": "image"}])], {}),
}


# Built-in templates that llama.cpp has too, under its names.
PEERS = {
    "llama3": "llama3", "llama4": "llama4", "kimi-k2": "kimi-k2", "glm4": "chatglm4", "exaone": "exaone4",
    "seed-oss": "seed_oss", "bailing": "bailing", "bailing2": "bailing2", "minicpm": "minicpm", "megrez": "megrez",
    "solar-open": "solar-open", "openchat": "openchat", "falcon3": "falcon3", "phi3": "phi3", "phi4": "phi4",
    "chatml": "chatml", "granite": "granite", "command-r": "command-r", "gemma": "gemma",
}
PEER_MESSAGES = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")]


def peers():
    """What llama.cpp writes for its built-in templates; it knows no token that begins a text."""
    import ctypes

    import llama_cpp

    chat = (llama_cpp.llama_chat_message * len(PEER_MESSAGES))()
    for i, (role, content) in enumerate(PEER_MESSAGES):
        chat[i].role, chat[i].content = role.encode(), content.encode()
    out = {}
    for name, theirs in PEERS.items():
        room = ctypes.create_string_buffer(4096)
        n = llama_cpp.llama_chat_apply_template(theirs.encode(), chat, len(PEER_MESSAGES), True, room, len(room))
        assert n >= 0, theirs
        out[name] = room.raw[:n].decode()
    return {"messages": [m(role, content) for role, content in PEER_MESSAGES], "texts": out}


def main():
    templates = {path.stem: path.read_text() for path in sorted((ROOT / "tools/templates").glob("*.jinja"))}
    for path in sorted((ROOT / "crates/text/src/chat/templates").glob("*.jinja")):
        templates["builtin/" + path.stem] = path.read_text()
    for path in sys.argv[1:]:
        import gguf

        field = gguf.GGUFReader(path).fields.get("tokenizer.chat_template")
        if field is not None:
            templates["model/" + pathlib.Path(path).stem] = field.contents()
    old = ROOT / "crates/text/tests/goldens/chat.json"
    if old.exists():  # models that are not at hand keep theirs
        for name, source in json.loads(old.read_text())["templates"].items():
            if name.startswith("model/"):
                templates.setdefault(name, source)
    env = environment()
    cases = []
    for name, source in templates.items():
        template = env.from_string(source)
        for conversation, (messages, extra) in CONVERSATIONS.items():
            for prompt in (True, False):
                case = {"template": name, "conversation": conversation, "add_generation_prompt": prompt}
                context = {"tools": None, "documents": None, **SPECIAL, **extra}
                try:
                    case["text"] = template.render(messages=messages, add_generation_prompt=prompt, **context)
                except jinja2.exceptions.TemplateError as error:
                    case["error"] = str(error)
                except (AttributeError, TypeError) as error:
                    case["error"] = str(error)
                cases.append(case)
    out = {
        "made_by": f"tools/template_goldens.py with jinja2 {jinja2.__version__}",
        "now": NOW,
        "special": SPECIAL,
        "templates": templates,
        "conversations": {name: {"messages": messages, "extra": extra} for name, (messages, extra) in CONVERSATIONS.items()},
        "cases": cases,
        "llama_cpp": peers(),
    }
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")
    print(f"{len(cases)} cases of {len(templates)} templates, {sum('error' in c for c in cases)} with errors")


if __name__ == "__main__":
    main()
