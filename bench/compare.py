#!/usr/bin/env python3
"""Compare modelembed with llama.cpp and ik_llama.cpp on this machine; docs/benchmarks.md says how and what the figures mean.

    python bench/compare.py measure --model models/A.gguf --model models/B.gguf --budget 140     (until it exits with 0)
    python bench/compare.py report

Runs under the Python that has both peers' packages. It builds nothing. `measure` adds runs to bench/results/NAME.json until every
test has --runs of them, all programs in turn, each in a fresh process; it ends early, with exit code 3, when the next round would
not fit the budget of seconds. `report` writes NAME.md and NAME.svg beside it.
"""
import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
PEERS = {"llama": "llama.cpp", "llama-norepack": "llama.cpp, no repacking", "ik": "ik_llama.cpp"}
PROGRAMS = {"modelembed": "modelembed", **PEERS}
SHORT = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
# What one process measures: its options, and whether another process keeps the first core busy
# meanwhile.
TESTS = {
    "speed": dict(prompt=512, gen=64, all_threads=True),
    "single": dict(prompt=128, gen=32, all_threads=False),
    "short": dict(short=SHORT, all_threads=True, repeat=3),
    "depth": dict(depth=4096, gen=32, all_threads=True),
    "busy": dict(gen=64, all_threads=True, busy=True),
}


def rate(runs, key, tokens):
    """Median tokens per second over all runs."""
    times = [us for run in runs for us in as_list(run.get(key))]
    return tokens / (statistics.median(times) / 1e6) if times else None


def as_list(value):
    return [] if value is None else value if isinstance(value, list) else [value]


def short_ms(n):
    def value(runs):
        times = [us for run in runs for short in run["short_prompts"] if short["tokens"] == n for us in short["us"]]
        return statistics.median(times) / 1e3 if times else None
    return value


def median_of(key, scale=1.0):
    def value(runs):
        values = [run[key] * scale for run in runs if run.get(key) is not None]
        return statistics.median(values) if values else None
    return value


# The rows of a model's table: title, test, unit, whether more is better, and the figure that
# follows from a program's runs.
ROWS = [
    ("prompt 512", "speed", "tokens/s", True, lambda runs: rate(runs, "prompt_us", 512)),
    ("decode 64", "speed", "tokens/s", True, lambda runs: rate(runs, "decode_us", 64)),
    ("prompt 128, 1 thread", "single", "tokens/s", True, lambda runs: rate(runs, "prompt_us", 128)),
    ("decode 32, 1 thread", "single", "tokens/s", True, lambda runs: rate(runs, "decode_us", 32)),
    ("prompt 4096", "depth", "tokens/s", True, lambda runs: rate(runs, "depth_us", 4096)),
    ("decode 32 behind 4096", "depth", "tokens/s", True, lambda runs: rate(runs, "decode_us", 32)),
    ("decode 64, one core busy", "busy", "tokens/s", True, lambda runs: rate(runs, "decode_us", 64)),
    *[(f"first token of {n}", "short", "ms", False, short_ms(n)) for n in SHORT],
    ("load to first token of 512", "speed", "ms", False, median_of("load_to_first_token_ms")),
    ("private memory", "speed", "MiB", False, median_of("private_bytes", 1 / (1 << 20))),
]


class Busy:
    """A process that computes on the first core that this one may use, at the same priority."""

    def __enter__(self):
        core = min(os.sched_getaffinity(0))
        code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: sum(range(10000))"
        self.process = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(0.3)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def command(program, test, model, args):
    threads = args.threads if test["all_threads"] else 1
    sizes = {"prompt": test.get("prompt", 0), "gen": test.get("gen", 0), "depth": test.get("depth", 0)}
    short = ",".join(map(str, test.get("short", [])))
    repeat = str(test.get("repeat", 1))
    if program == "modelembed":
        out = [args.binary, "bench", "-model", model, "-format", "json", "-threads", str(threads), "-repeat", repeat,
               "-prompt-tokens", str(sizes["prompt"]), "-gen-tokens", str(sizes["gen"]), "-depth", str(sizes["depth"]),
               *args.option]
        # Bandwidth beside the decoding that is compared with it, and nowhere else: it takes a
        # second.
        return out + (["-short-prompts", short] if short else []) + ([] if test is TESTS["speed"] else ["-no-bandwidth"])
    out = [sys.executable, str(HERE / "peer.py"), "--peer", program, "--model", model, "--threads", str(threads),
           "--repeat", repeat]
    for name, size in sizes.items():
        out += [f"--{name}", str(size)]
    return out + (["--short", short] if short else [])


def run_one(program, test, model, args):
    done = subprocess.run(command(program, test, model, args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{program} failed on {model}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def prepare(path, args):
    """Has the file read from the disk into the page cache as a first start does: through a mapping, whose pages are large where the
    file system has large ones. All programs then find the same pages."""
    for command in (["evict", "-model", path], ["-model", path, "-p", "a", "-n", "1", "-quiet"], ["warm", "-model", path]):
        subprocess.run([args.binary, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def measure(args):
    start = time.monotonic()
    state = json.loads(args.state.read_text()) if args.state.exists() else {"models": {}, "seconds": {}}
    state["about"] = about(args)
    for path in args.model:
        prepare(path, args)
        name = pathlib.Path(path).stem
        tests = state["models"].setdefault(name, {})
        for test_name in args.test:
            test = TESTS[test_name]
            runs = tests.setdefault(test_name, {program: [] for program in PROGRAMS})
            key = f"{name}/{test_name}"
            while min(len(runs[p]) for p in args.program) < args.runs:
                # One round: each program once, another one first each time.
                left = args.budget - (time.monotonic() - start)
                if left < state["seconds"].get(key, 0) * 1.2:
                    save(args.state, state)
                    print(f"more to do: {key}", file=sys.stderr)
                    return 3
                round_start = time.monotonic()
                n = min(len(runs[p]) for p in args.program)
                for program in args.program[n % len(args.program):] + args.program[:n % len(args.program)]:
                    if len(runs[program]) > n:
                        continue
                    if test.get("busy"):
                        with Busy():
                            result = run_one(program, test, path, args)
                    else:
                        result = run_one(program, test, path, args)
                    result.pop("model", None)  # a path
                    runs[program].append(result)
                state["seconds"][key] = time.monotonic() - round_start
                save(args.state, state)
    return 0


def save(path, state):
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(state, indent=1) + "\n")
    os.replace(new, path)


def about(args):
    cpu = re.search(r"^model name\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    flags = re.search(r"^flags\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    known = ["avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8"]
    has = [flag for flag in known if flags and flag in flags[1].split()]
    version = subprocess.run([args.binary, "--version"], capture_output=True, text=True, check=True).stdout.split()
    git = subprocess.run(["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True)
    package = lambda name: f"{name} {importlib.metadata.version(name)}"
    return {
        **({"note": args.note} if args.note else {}),
        "date": datetime.date.today().isoformat(),
        "machine": f"{cpu[1] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, {', '.join(has)}",
        "threads": args.threads,
        "versions": {"modelembed": f"{version[-1]} ({git.stdout.strip() or 'no git'})", "llama.cpp": package("llama-cpp-python"),
                     "ik_llama.cpp": package("ik-llama-cpp-python")},
    }


def table(tests):
    """Rows of one model: title, unit, figure of each program, ratio over the best peer (above 1: modelembed is better)."""
    out = []
    for title, test, unit, more, figure in ROWS:
        runs = tests.get(test)
        if not runs or not runs.get("modelembed"):
            continue
        values = {program: figure(runs[program]) for program in PROGRAMS if runs.get(program)}
        peers = [values[p] for p in PEERS if values.get(p)]
        ours = values.get("modelembed")
        ratio = None
        if ours and peers:
            ratio = ours / max(peers) if more else min(peers) / ours
        out.append({"title": title, "unit": unit, "more_is_better": more, "values": values, "ratio": ratio,
                    "runs": min(len(runs[p]) for p in values)})
    return out


def busy_share(rows):
    """Of each program's decoding speed, what is left beside a busy process."""
    by_title = {row["title"]: row for row in rows}
    quiet, busy = by_title.get("decode 64"), by_title.get("decode 64, one core busy")
    if not quiet or not busy:
        return None
    share = lambda p: busy["values"][p] / quiet["values"][p] if busy["values"].get(p) and quiet["values"].get(p) else None
    return {program: share(program) for program in PROGRAMS}


def number(x, unit=""):
    if x is None:
        return ""
    digits = 0 if abs(x) >= 100 else 1 if abs(x) >= 10 else 2
    return f"{x:.{digits}f}"


def markdown(state):
    about = state["about"]
    lines = [f"Measured on {about['date']}: {about['machine']};",
             f"{about['threads']} threads unless the row says otherwise.",
             "; ".join(f"{name}: {version}" for name, version in about["versions"].items()) + ".",
             *([about["note"]] if about.get("note") else []),
             "The ratio is over the best peer of the row; above 1 modelembed is better. Medians.", ""]
    for model, tests in state["models"].items():
        rows = table(tests)
        if not rows:
            continue
        lines += [f"### {model}", "", f"| test | unit | {' | '.join(PROGRAMS.values())} | ratio | runs |",
                  f"|---|---|{'---:|' * (len(PROGRAMS) + 2)}"]
        for row in rows:
            values = [number(row["values"].get(p)) for p in PROGRAMS]
            ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
            lines.append(f"| {row['title']} | {row['unit']} | {' | '.join(values)} | {ratio} | {row['runs']} |")
        share = busy_share(rows)
        if share:
            cells = [f"{100 * share[p]:.0f} %" if share[p] else "" for p in PROGRAMS]
            lines.append(f"| busy / quiet decode | | {' | '.join(cells)} | | |")
        speed = tests.get("speed", {}).get("modelembed", [])
        found = [(run["read_gb_per_second"], run["bandwidth_share"]) for run in speed if run.get("bandwidth_share")]
        if found:
            gb, part = (statistics.median(values) for values in zip(*found))
            lines += ["", f"Decoding reads {100 * part:.0f} % of the {gb:.1f} GB/s that this machine reads with as many threads."]
        lines.append("")
    return "\n".join(lines)


COLOURS = {"modelembed": "#0b6e4f", "llama": "#8a8f98", "llama-norepack": "#c3c7cd", "ik": "#d98e04"}


def chart(state):
    """Bars of each program relative to the best peer of the row, cut at three times, and modelembed's ratio."""
    label, width, bar, gap, shown = 190, 420, 7, 10, 3.0
    x = lambda ratio: label + width * min(ratio, shown) / shown
    body, y = [], 58
    text = lambda x, y, s, more="": body.append(f'<text x="{x:.0f}" y="{y:.0f}" {more}>{s}</text>')
    skipped = {f"first token of {n}" for n in SHORT if n not in (1, 8, 32)}
    for model, tests in state["models"].items():
        rows = [row for row in table(tests) if row["ratio"] and row["title"] not in skipped]
        if not rows:
            continue
        text(8, y + 10, model, 'font-weight="bold"')
        y += 22
        for row in rows:
            peers = [row["values"][p] for p in PEERS if row["values"].get(p)]
            best = max(peers) if row["more_is_better"] else min(peers)
            height = bar * len(row["values"])
            text(label - 8, y + height / 2 + 4, row["title"], 'text-anchor="end"')
            for i, program in enumerate(row["values"]):
                value = row["values"][program]
                if not value:
                    continue
                ratio = value / best if row["more_is_better"] else best / value
                at = y + i * bar
                body.append(f'<rect x="{label}" y="{at}" width="{x(ratio) - label:.1f}" height="{bar - 1}" fill="{COLOURS[program]}"/>')
            weight = "bold" if row["ratio"] >= 1 else "normal"
            text(label + width + 8, y + height / 2 + 4, f"{row['ratio']:.2f}", f'font-weight="{weight}"')
            y += height + gap
        y += 8
    head, at = [], 8
    for program, name in PROGRAMS.items():
        head.append(f'<rect x="{at}" y="24" width="10" height="10" fill="{COLOURS[program]}"/><text x="{at + 14}" y="33">{name}</text>')
        at += 34 + 7 * len(name)
    about = state["about"]
    title = f"Relative to the best peer (line); longer is better. {about['machine']}, {about['date']}"
    head.append(f'<text x="8" y="14">{title}</text>')
    line = f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="44" y2="{y}" stroke="#222" stroke-dasharray="3 2"/>'
    total = max(label + width + 60, 8 + 7 * len(title))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{y + 8}" font-family="sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="white"/>{"".join(head)}{"".join(body)}{line}</svg>\n')


def report(args):
    state = json.loads(args.state.read_text())
    args.state.with_suffix(".md").write_text(markdown(state))
    args.state.with_suffix(".svg").write_text(chart(state))
    print(markdown(state))
    return 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("action", choices=["measure", "report"])
    p.add_argument("--model", action="append", default=[], help="a GGUF file; may be given several times")
    p.add_argument("--test", action="append", choices=list(TESTS), help="default: all")
    p.add_argument("--program", action="append", choices=list(PROGRAMS), help="default: all")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no new round begins")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--binary", default=str(HERE.parent / "build/bin/modelembed"))
    p.add_argument("--option", action="append", default=[], help="a further word of modelembed's command line: --option=-isa --option=avx2")
    p.add_argument("--note", help="a sentence for the report's head: how the peers were built, say")
    p.add_argument("--name", default="latest", help="of the files in bench/results")
    args = p.parse_args()
    args.test = args.test or list(TESTS)
    args.program = args.program or list(PROGRAMS)
    args.state = HERE / "results" / f"{args.name}.json"
    return {"measure": measure, "report": report}[args.action](args)


sys.exit(main())
