#!/usr/bin/env python3
"""What every test, filter and operator of Jinja makes of none and undefined, into crates/text/tests/goldens/none.json.

usage: none_goldens.py

Needs jinja2, which is set up as in template_goldens.py. A row is a template and what Python renders, or null and Python's error:
then the Rust test must be refused too.
"""
import json

import jinja2

from template_goldens import ROOT, environment

# What templates see: a message without text, as a chat with tool calls has it, and tools that were not given.
CONTEXT = {"tools": None, "m": {"role": "assistant", "content": None, "calls": []}}

NONE = ["none", "m.content", "m['content']", "tools"]
UNDEFINED = ["missing", "m.missing", "m['missing']"]
OTHERS = ["3", "1.5", "''", "'aB c'", "[]", "['b', none]", "[missing, 'a']", "{}", "{'a': none}", "(none, 1)"]
SUBJECTS = NONE + UNDEFINED + OTHERS

# Each test with arguments that it takes.
TESTS = """
boolean callable defined divisibleby(2) eq(none) eq(missing) equalto(none) escaped even false filter float ge(none) ge(1) gt(none) gt(1)
greaterthan(none) in([none]) in([missing]) in('None') in(none) in(missing) in({'a':1}) integer iterable le(none) lessthan(1) lower lt(none)
lt('a') mapping ne(none) ne(missing) none number odd sameas(none) sameas(missing) sequence string test true undefined upper
""".split()

# The same for filters. What makes a generator is made a list of. `random` draws; `filesizeformat`,
# `striptags`, `urlencode`, `urlize`, `wordwrap` and `xmlattr` are for web pages and mail, and not
# known to the program.
FILTERS = [
    "abs", "attr('a')", "attr('missing')", "batch(2)|list", "batch(2, none)|list", "capitalize", "center(9)", "count", "d('x')", "d('x', true)",
    "default('x')", "default('x', true)", "default(none)", "default(missing)", "default", "default(default_value='x', boolean=true)", "dictsort",
    "e", "escape", "first", "first is defined", "float", "float(none)", "forceescape", "format(1)", "groupby('a')|list", "indent", "indent(2, true)", "int", "int(none)",
    "items|list", "join", "join(', ')", "join(none)", "join(missing)", "join(attribute='a')", "last", "last is defined", "length", "list",
    "lower", "map('upper')|list", "map(attribute='a')|list", "map(attribute='a', default=none)|list", "map('default', 'x')|list", "max", "min",
    "pprint", "reject|list", "reject('none')|list", "rejectattr('a')|list", "rejectattr('a', 'none')|list", "replace('N', 'x')", "replace(none, 'x')", "replace('N', none)",
    "replace(missing, 'x')", "reverse|list", "round", "safe", "select|list", "select('none')|list", "select('defined')|list",
    "selectattr('a')|list", "selectattr('a', 'none')|list", "selectattr('a', 'defined')|list", "slice(2)|list", "sort", "sort(reverse=true)", "sort(attribute='a')", "string",
    "sum", "sum(start=1)", "sum(attribute='a')", "title", "tojson", "trim", "trim('N')", "trim(none)", "truncate(3)", "unique|list", "unique(attribute='a')|list",
    "upper", "wordcount",
]

# What differs, has nothing to do with none, and is not asked for.
ASIDE = {
    ("{'a': none}", "attr('a')"),  # an item is no attribute
    *((s, f) for s in OTHERS for f in ["join(none)", "map(attribute='a', default=none)|list"]),
    *((s, t) for s in OTHERS if s[0] in "[{" for t in ["filter", "test"]),
}

# S is the subject.
OPERATIONS = """
{{ S }}
{{ S ~ 'x' }}
{{ 'x' ~ S }}
{{ S ~ S }}
{{ [S] }}
{{ [S, [S]] ~ '' }}
{{ {'k': S} }}
{{ (S, 1) }}
{{ S + 'x' }}
{{ 'x' + S }}
{{ S + 1 }}
{{ 1 + S }}
{{ S - 1 }}
{{ S * 2 }}
{{ 'x' * S }}
{{ S / 2 }}
{{ S // 2 }}
{{ S % 2 }}
{{ S ** 2 }}
{{ -S }}
{{ not S }}
{{ S and 'x' }}
{{ S or 'x' }}
{{ 'x' if S else 'y' }}
{{ 'x' if S }}|{{ ('x' if S) is defined }}
{{ S if true else 'y' }}
{{ S == none }}
{{ S != none }}
{{ S == missing }}
{{ none == S }}
{{ missing == S }}
{{ S == 'x' }}
{{ S == '' }}
{{ S == false }}
{{ S == 0 }}
{{ S == [] }}
{{ S != 'x' }}
{{ S == S }}
{{ [S] == [none] }}
{{ [S] == [missing] }}
{{ S < 1 }}
{{ S > 1 }}
{{ S <= none }}
{{ S >= 'a' }}
{{ 1 < S }}
{{ 'a' > S }}
{{ 0 < S < 2 }}
{{ S in [none, 1] }}
{{ S in [missing] }}
{{ S not in ['x'] }}
{{ S in 'None' }}
{{ S in {} }}
{{ S in {'a': 1} }}
{{ S in none }}
{{ S in missing }}
{{ none in S }}
{{ missing in S }}
{{ 'x' in S }}
{{ 'a' not in S }}
{{ 1 in S }}
{% for x in S %}[{{ x }}]{% endfor %}
{% for x in S %}[{{ x }}]{% else %}empty{% endfor %}
{% for x in S or [] %}[{{ x }}]{% else %}empty{% endfor %}
{% for a, b in S %}[{{ a }}{{ b }}]{% endfor %}
{% for x in [1, S] if x %}[{{ x }}]{% endfor %}
{% for x in [1] if S %}[{{ x }}]{% endfor %}
{% for x in [S] %}{{ loop.index }}{{ x }}{{ loop.previtem }}{{ loop.nextitem }}{% endfor %}
{% if S %}yes{% else %}no{% endif %}
{% if S is defined and S is not none %}yes{% else %}no{% endif %}
{% if S is iterable and S | length > 0 %}yes{% else %}no{% endif %}
{% if S is iterable and S is not mapping and S is not string %}yes{% else %}no{% endif %}
{% if S is not none and S is sequence %}yes{% else %}no{% endif %}
{{ S.a }}
{{ S.a is defined }}
{{ S.a.b }}
{{ S.a.b is defined }}
{{ S.a | default('x') }}
{{ S['a'] }}
{{ S['a'] is defined }}
{{ S[0] }}
{{ S[0] is defined }}
{{ S[-1] }}
{{ S[none] }}
{{ S[missing] }}
{{ [1, 2][S] }}
{{ {'a': 1}[S] }}
{{ {none: 1}[S] }}
{{ S() }}
{{ S.strip() }}
{{ S.upper() }}
{{ S.split('x') }}
{{ S.items() | list }}
{{ S.keys() | list }}
{{ S.get('a') }}
{{ S.get('z') }}
{{ S.get('z', S) }}
{{ S.startswith('a') }}
{{ S.startswith('a') is defined }}
{{ 'aNb'.replace('N', S) }}
{{ 'ab'.split(S) }}
{{ 'ab'.strip(S) }}
{{ 'ab'.startswith(S) }}
{{ 'x'.join([S]) }}
{{ 'x'.join(S) }}
{{ {'a': 1}.get(S) }}
{{ {'a': 1}.get(S, S) }}
{{ '%s' % S }}
{{ '%s %s' | format(S, 1) }}
{{ '{}'.format(S) }}
{{ range(S) | list }}
{{ dict(a=S) }}
{{ raise_exception(S) }}
{% set y = S %}{{ y }}|{{ y is defined }}|{{ y is none }}
{% set ns = namespace(a=S) %}{{ ns.a }}|{{ ns.a is defined }}|{{ ns.a is none }}
{% set a, b = S %}{{ a }}{{ b }}
{% macro f(a, b=S) %}{{ a }}|{{ b }}|{{ a is defined }}|{{ b is none }}{% endmacro %}{{ f() }}|{{ f(S, S) }}
{% with y = S %}{{ y }}{% endwith %}
{% set y %}{{ S }}{% endset %}{{ y | length }}
{% filter upper %}{{ S }}{% endfilter %}
{{ S | length if S is not none }}
{{ (S or '') | trim }}
{{ S | default('', true) | trim }}
""".strip().splitlines()

# Of names only: what a slice of a constant cannot be is undefined, since it is computed when the template is compiled.
SLICES = ["{{ S[1:] }}", "{{ S[:1] }}", "{{ S[::-1] }}", "{{ [1, 2][S:] }}", "{{ [1, 2][:S] }}"]

# Lists of which some items are, or lack, what is asked for.
LISTS = """
{{ [none, 1] | sort }}
{{ ['b', none] | sort }}
{{ [none, none] | sort }}
{{ [missing, missing] | sort }}
{{ [{'a': none}, {'a': 1}] | sort(attribute='a') }}
{{ [{'b': 1}, {'a': 1}] | sort(attribute='a') }}
{{ [{'b': 1}, {'b': 2}] | sort(attribute='a') }}
{{ [1, none] | sum }}
{{ [none, 1] | max }}
{{ [missing, 1] | min }}
{{ [none] | max }}
{{ [none, none, 1, missing, missing] | unique | list }}
{{ [none, 'a', missing] | join(',') }}
{{ [{'a': none}, {'a': 1}, {}] | map(attribute='a') | list }}
{{ [{'a': none}, {'a': 1}, {}] | map(attribute='a') | join(',') }}
{{ [{'a': none}, {'a': 1}, {}] | map(attribute='a', default='x') | list }}
{{ [{'a': none}, {'a': 1}, {}] | selectattr('a') | list }}
{{ [{'a': none}, {'a': 1}, {}] | selectattr('a', 'none') | list }}
{{ [{'a': none}, {'a': 1}, {}] | selectattr('a', 'defined') | list }}
{{ [{'a': none}, {'a': 1}, {}] | rejectattr('a', 'undefined') | list }}
{{ [{'a': none}, {'a': 1}, {}] | selectattr('a', 'eq', 1) | list }}
{{ [{'a': none}, {'a': 1}, {}] | selectattr('a', 'in', [none]) | list }}
{{ [{'a': none}, {'a': 1}] | rejectattr('a', 'gt', 0) | list }}
{{ [{'a': none}, {'a': 1}, {}] | selectattr('a.b', 'defined') | list }}
{{ [{'a': none}] | map(attribute='a.b') | list }}
{{ [{'a': none}, {'a': none}] | groupby('a') | list }}
{{ [{'a': none}, {'a': 1}] | groupby('a') | list }}
{{ [none, 1, 'a', missing] | map('string') | list }}
{{ [none, 1, 'a'] | map('upper') | list }}
{{ [none, 'a'] | map('length') | list }}
{{ [none, 'a', missing] | map('default', 'd', true) | list }}
{{ [none, 'a', missing] | select | list }}
{{ [none, 'a', missing] | reject('none') | list }}
{{ [none, 'a', missing] | select('string') | list }}
{{ [none, 'a'] | map('tojson') | join }}
{{ {'b': none, 'a': 1} | dictsort }}
{{ {'b': none, 'a': 1} | dictsort(by='value') }}
{{ {none: 1, 'a': 2} | dictsort }}
{{ {none: 1} | tojson }}
{{ [none, {'a': none}] | tojson }}
{{ [missing] | tojson }}
{{ {none: none} }}
{{ {'a': none}.values() | list }}
{{ {'a': none}.get('a', 'x') }}
{{ {'a': none}.a is none }}
{{ [none, none].index(none) }}
{{ [none, 1, none].count(none) }}
{{ [none] + [missing] }}
{{ [none] * 2 }}
{{ [[none], [missing]] | sum(start=[]) }}
{{ loop is defined }}
{{ loop }}
{{ varargs is defined }}
{{ nothing.nowhere }}
{{ nothing() }}
{{ m.content.strip() }}
{{ m.calls | first }}
{{ (m.calls | first).name }}
{{ (m.calls | first).name is defined }}
{{ m.calls[0].name }}
{{ m.calls[0] is defined }}
{% if m.content is string %}a{% elif m.content is iterable %}b{% else %}c{% endif %}
{% if m.content is string %}a{% elif m.content is sequence %}b{% else %}c{% endif %}
{% if tools is iterable and tools | length > 0 %}a{% else %}b{% endif %}
{% if tools is not none and tools | length %}a{% else %}b{% endif %}
{{ m.content if m.content is not none else '' }}
{{ m.content | default('', true) }}
{{ m.reasoning | default('') | trim }}
{{ None }}|{{ True }}|{{ False }}
{{ none is none }}|{{ None is none }}|{{ none is defined }}
{{ 'a' 'b' ~ none }}
{{ none | none }}
{{ none is nosuch }}
""".strip().splitlines()

# Shapes of expressions around operators that the program writes anew.
SHAPES = """
{{ (1 + 2) < (4) }}|{{ 1 + 2 < 4 and not (3 > 4) }}|{{ not 1 > 2 }}|{{ -1 < 0 }}|{{ - 1 < (- 0) }}
{{ 1 < 2 < 3 <= 3 != 4 }}|{{ 1 < (2) < 1 + 1 }}|{{ (1 < 2) == true }}|{{ 1 < 2 == true }}|{{ 1 == 1 in [1] }}|{{ 3 > 2 not in [1] }}
{{ 'a' not in ('b') ~ 'c' }}|{{ 'a'  not   in  'abc' }}|{{ not 'a' in 'b' }}|{{ not ('a' not in 'b') }}|{{ 'a' in 'abc' and 'z' not in 'abc' or false }}
{{ ('b' in 'abc') | string | upper }}|{{ 'x' ~ (1 < 2) ~ ('a' in 'b') }}|{{ [1 < 2, 'a' in 'a'] }}|{{ {'k': 1 < 2}['k'] }}|{{ 'yes' if 2 > 1 else 'no' }}
{{ (m.calls or [1, 2])[1:] }}|{{ [3, 1, 2][::-1][0:2] }}|{{ m.role[1:][:2] }}|{{ (m.role ~ 'x')[-2:] }}|{{ (m.role if true else '')[:3] | upper }}|{{ m['role'].upper()[2:4] }}
{% for x in ([1] or [2]) if x in [1] and x < 2 %}{{ x }}{% endfor %}|{% for x in [3, 1] + [2] %}{{ x }}{% endfor %}|{% for k, v in m.items() if v is string %}{{ k }}{% endfor %}
{% for x in m.role | list | sort %}{{ x }}{% endfor %}|{% for x in (m.calls if m.calls else ['n']) %}{{ x }}{% endfor %}|{% for c in m.role[:2] %}{{ c }}{% endfor %}
{{ ['b', 'a'] | sort | first in 'abc' }}|{{ (m.calls or ['z', 'y']) | sort | join('<') }}|{{ m.role | length > 3 and m.role | length < 20 }}|{{ loop is defined and 1 < 2 }}
{% set ns = namespace(a=1 < 2) %}{% set ns.b = 2 in [1] %}{{ ns.a }}{{ ns.b }}|{% set a, b = 1 < 2, 2 < 1 %}{{ a }}{{ b }}|{{ dict(a=1 < 2).a }}
{% macro f(x, y=1 < 2) %}{{ x }}{{ y }}{% endmacro %}{{ f(2 < 1) }}|{{ f('a' in 'a', y='b' in 'a') }}|{{ [1, 2, 3] | select('gt', 1) | list }}
{% if 1 is lt(2) and 'a' is in(['a']) and 3 is not in [4] %}yes{% endif %}|{{ 3 is lt 4 }}|{{ 'a' is in 'abc' }}|{{ 1 < 2 is true }}
{{ [2, 1] < [2, 2] }}|{{ (1, 'b') >= (1, 'a') }}|{{ [] < [1] }}|{{ 'a' < 'b' }}|{{ true < 2 }}|{{ 1.5 <= 1 }}|{{ [1, 2] < [1] }}|{{ 'B' < 'a' }}
{{ [1, 'a'] < [2, 1] }}|{{ 2 in (1, 2) }}|{{ 1 in {1: 2} }}|{{ '' in '' }}|{{ ('a', 1) in {('a', 1): 2} }}|{{ [1] in [[1], 2] }}
{{ ['b', 'A', 'c'] | sort }}|{{ ['b', 'A'] | sort(case_sensitive=true) }}|{{ [{'a': 2}, {'a': 1}] | sort(attribute='a', reverse=true) }}|{{ [[1, 2], [1, 1]] | sort }}|{{ ['b', 'A'] | min }}{{ [1, 2.5] | max }}
{{ {'b': 1, 'a': 2} | dictsort(by='value') }}|{{ {'b': 1, 'A': 2} | dictsort }}|{{ [{'a': 1, 'b': 2}, {'a': 1}] | groupby('a') }}|{{ [1, 1, 'a', 'A'] | unique | list }}
{{ 'abc def ghi' | truncate(7, leeway=0) }}|{{ 'abc def ghi' | truncate(7, true, '~', 0) }}|{{ 'abcdefghijkl' | truncate(6) }}|{{ 'x y-z 1_2' | wordcount }}|{{ 'ab' | center(5) }}|{{ 'abc' | center(6) }}|
{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb\\n\\nc' | indent(2, true, true) }}|{{ 'a\\r\\nb' | indent(width='> ', first=true) }}|{{ '<a href="x">&' | e }}|{{ "it's" | escape | forceescape }}
{{ '12' | int }}|{{ '1.9' | int }}|{{ 'x' | int(7) }}|{{ '1.5' | float }}|{{ 'x' | float }}|{{ '0x1f' | int(base=16) }}|{{ 3.9 | int }}|{{ true | int }}|{{ '' | int(default=4) }}
""".strip().splitlines()


def main():
    env = environment()
    sources = [f"{{{{ {s} is {t} }}}}" for s in SUBJECTS for t in TESTS if (s, t) not in ASIDE]
    sources += [f"{{{{ {s} is not {t} }}}}" for s in ["none", "missing"] for t in TESTS]
    sources += [f"{{{{ {s} | {f} }}}}" for s in SUBJECTS for f in FILTERS if (s, f) not in ASIDE]
    sources += [o.replace("S", s) for s in SUBJECTS for o in OPERATIONS]
    sources += [o.replace("S", s) for s in NONE[1:] + UNDEFINED for o in SLICES]
    sources += LISTS + SHAPES
    rows = []
    for source in dict.fromkeys(sources):
        try:
            row = [source, env.from_string(source).render(**CONTEXT)]
        except Exception as error:  # any: the row says that Python refuses, and how
            row = [source, None, f"{type(error).__name__}: {error}"]
        # Where an object lies in memory is nobody's business.
        if " at 0x" not in str(row[1]):
            rows.append(row)
    out = ROOT / "crates/text/tests/goldens/none.json"
    with out.open("w") as file:
        head = {"made_by": f"tools/none_goldens.py with jinja2 {jinja2.__version__}", "context": CONTEXT}
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + ',\n"rows": [\n')
        file.write(",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]}\n")
    print(f"{len(rows)} rows, {sum(row[1] is None for row in rows)} of them refused")


if __name__ == "__main__":
    main()
