#!/usr/bin/env python3
"""Measures how fast a server answers under load, beside others that answer the same requests.

    bench/serve.py --ours "target/release/modelembed serve -model M -port {port} -log off" \\
        --peer "llama.cpp=llama-server -m M --port {port} -np 16 -c 32768" \\
        --users 1,8,16 --rounds 3 --long 6000 --chat 4000 --json bench/results/serve.json

Each server is started on a free port. In each round each server has its turn, another one first
each time; those whose turn it is not are stopped (SIGSTOP). In its turn a server answers:

  users   so many users at once, each of whom sends several streamed chat requests one after the
          other: tokens of all answers over the time from the first request to the last answer,
          and how long a first token takes
  --long  a long prompt while two answers are written: the gaps between the tokens of these two,
          and how long the long prompt's first token takes
  --chat  a second turn behind a long first one: how long its first token takes

Requests are greedy and ignore the end of text, and all servers get the same ones. Prompts begin
with different words, so that servers share nothing of them but what the template writes before.
Tokens are what the server counts (`usage`), times are when bytes came. The client shares the cores
with the servers, so it does little while they compute: one thread writes requests and keeps the
bytes that come with their times; they are read as streams when all is over.
"""
import argparse
import bisect
import datetime
import gc
import json
import math
import os
import pathlib
import platform
import random
import re
import selectors
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

# How long a server may take until it answers, to end, and to be silent under load.
START_SECONDS = 60
END_SECONDS = 10
SILENT_SECONDS = 300
# The two answers have begun when so many pieces of each have come.
BEGUN_PIECES = 12
# Tokens of the answer to a long prompt: its first one counts.
LONG_ANSWER_TOKENS = 4

# Options that are written beside the figures.
SETTINGS = ("users", "requests", "prompt_tokens", "answer_tokens", "rounds", "long", "long_answer",
            "chat")

# Words that are a token of most vocabularies with the blank before them.
WORDS = """
about above after again against almost along also always among another answer anything around back
because become before began behind being below better between both bring brought build called came
cannot carry change children city clear close cold come common complete could country course cover
cross dark deep different door down draw during each early earth enough even ever every example
eyes face fact family father feet field find fire first five follow food force form found four free
friend front full game gave general give gold good government great green ground group grow half
hand happen hard have head hear heard heart heavy help here high hold home horse hour house human
hundred idea important inside island just keep kind king knew know land language large last later
lead learn leave left letter life light like line list listen little live long look made main make
many mark matter mean measure might mind minute miss money moon more morning most mother mountain
move music must name near need never next night north note nothing notice number object often once
only open order other over page paper part pass past pattern people perhaps person picture piece
place plain plan plant point power present problem produce public pull question quick rain reach
read ready real red rest right river road rock room round rule run said same school science second
seem sentence serve set seven several shape ship short should show side simple since sing sit size
sleep slow small snow some song soon sound south space stand star start state stay step still stood
stop story street strong study such sun sure surface system table take talk teach tell test than
that their them then there these thing think those though thought thousand three through time today
together told took town travel tree true turn under unit until upon usual very voice vowel wait
walk warm watch water week weight well went west what wheel where which while white whole whose
wind wish without woman wonder wood word work world would write year young
""".split()


class Failed(Exception):
    """What ends the measurement, in words."""


# --- Servers --------------------------------------------------------------------------------------


class Server:
    """A server's process, and the port that it answers on."""

    def __init__(self, name, command):
        self.name = name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.words = [word.replace("{port}", str(self.port)) for word in shlex.split(command)]
        self.log = tempfile.TemporaryFile()
        try:
            # A group of its own: Ctrl-C comes to the client alone, which ends all of it.
            self.process = subprocess.Popen(self.words, stdin=subprocess.DEVNULL, stdout=self.log,
                                            stderr=self.log, start_new_session=True)
        except OSError as error:
            raise Failed(f"{name} cannot be started: {error}") from None

    def wait(self):
        """Until it takes requests."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
            if self.is_healthy():
                return
            time.sleep(0.05)
        raise Failed(f"{self.name} did not answer /health within {START_SECONDS} s:\n{self.tail()}")

    def is_healthy(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                head = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
                connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
                return connection.recv(64).split(b" ")[1:2] == [b"200"]
        except OSError:
            return False

    def tail(self):
        """The end of what it printed."""
        self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, self.log.tell() - 4000))
        return self.log.read().decode(errors="replace").strip()

    def signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def kill(self):
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        self.signal(signal.SIGKILL)
        self.process.wait()


# --- Load -----------------------------------------------------------------------------------------


class Exchange:
    """A request under way: what is still to be written, and what came when."""

    def __init__(self, port, request):
        self.request = request
        body = json.dumps(request).encode()
        head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n")
        self.unsent = head.encode() + body
        self.pieces = []
        self.times = []
        self.begun = time.perf_counter()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)


class Load:
    """Exchanges with a server, all in one loop. `ended` holds those that are over."""

    def __init__(self, server):
        self.server = server
        self.selector = selectors.DefaultSelector()
        self.open = set()
        self.ended = []

    def send(self, request):
        exchange = Exchange(self.server.port, request)
        self.open.add(exchange)
        self.selector.register(exchange.socket, selectors.EVENT_WRITE, exchange)
        return exchange

    def step(self):
        """Waits for bytes and keeps them. Returns the exchanges that ended."""
        ready = self.selector.select(SILENT_SECONDS)
        if not ready:
            name, tail = self.server.name, self.server.tail()
            raise Failed(f"{name} was silent for {SILENT_SECONDS} s:\n{tail}")
        over = []
        for key, _ in ready:
            exchange = key.data
            try:
                if exchange.unsent:
                    exchange.unsent = exchange.unsent[exchange.socket.send(exchange.unsent):]
                    if not exchange.unsent:
                        self.selector.modify(exchange.socket, selectors.EVENT_READ, exchange)
                    continue
                piece = exchange.socket.recv(1 << 16)
            except BlockingIOError:
                continue
            except OSError as error:
                name, tail = self.server.name, self.server.tail()
                raise Failed(f"{name} broke a connection: {error}\n{tail}") from None
            if piece:
                exchange.times.append(time.perf_counter())
                exchange.pieces.append(piece)
            else:
                self.close(exchange)
                over.append(exchange)
        self.ended += over
        return over

    def close(self, exchange):
        self.selector.unregister(exchange.socket)
        exchange.socket.close()
        self.open.discard(exchange)

    def __enter__(self):
        # The collector would look at everything that was kept so far.
        gc.collect()
        gc.disable()
        return self

    def __exit__(self, *_):
        for exchange in list(self.open):
            self.close(exchange)
        self.selector.close()
        gc.enable()


# --- What came ------------------------------------------------------------------------------------


class Stream:
    """An answer, read from the bytes of its exchange."""

    def __init__(self, server, exchange, is_whole=True):
        self.begun = exchange.begun
        # When each token came (a chunk that says something), and their text.
        self.tokens = []
        self.text = ""
        self.usage = None
        self.end = exchange.times[-1] if exchange.times else exchange.begun
        body, marks = read_body(server, exchange)
        if not body.endswith(b"data: [DONE]\n\n") and is_whole:
            seen = f"{body[-300:]!r}\n{server.tail()}"
            raise Failed(f"{server.name} ended an answer too early: {seen}")
        at = 0
        while (end := body.find(b"\n\n", at)) >= 0:
            data = body[at:end].removeprefix(b"data: ")
            at = end + 2
            if data != b"[DONE]" and not data.startswith(b":"):
                when = marks[bisect.bisect_left(marks, (at,))][1]
                self.event(server, json.loads(data), when)
        if is_whole and self.usage is None:
            raise Failed(f"{server.name} gives no usage in streams")

    def event(self, server, event, when):
        if "error" in event:
            raise Failed(f"{server.name} failed within an answer: {event['error']}")
        for choice in event.get("choices", []):
            delta = choice.get("delta", {})
            text = delta.get("content") or delta.get("reasoning_content") or ""
            if text:
                self.tokens.append(when)
                self.text += text
        self.usage = event.get("usage") or self.usage

    def first_ms(self, server):
        """How long the first token took."""
        if not self.tokens:
            raise Failed(f"{server.name} gave an answer without a token that has text")
        return 1000 * (self.tokens[0] - self.begun)

    @property
    def cached(self):
        """Tokens of the prompt that were there, where the server tells that."""
        return ((self.usage or {}).get("prompt_tokens_details") or {}).get("cached_tokens")


def read_body(server, exchange):
    """The body, and pairs of where in it a piece ends and when that came."""
    raw = b"".join(exchange.pieces)
    ends, at = [], 0
    for piece in exchange.pieces:
        at += len(piece)
        ends.append(at)
    head, _, _ = raw.partition(b"\r\n\r\n")
    if head.split(b" ")[1:2] != [b"200"]:
        seen = raw[:1000].decode(errors="replace")
        raise Failed(f"{server.name} refused a request: {seen}")
    when = lambda end: exchange.times[bisect.bisect_left(ends, end)]
    at = len(head) + 4
    if not re.search(rb"^transfer-encoding: *chunked\r?$", head, re.I | re.M):
        body = raw[at:]
        return body, [(end - at, t) for end, t in zip(ends, exchange.times) if end > at]
    body, marks = [], []
    n_bytes = 0
    while (line := raw.find(b"\r\n", at)) >= 0:
        size = int(raw[at:line].split(b";")[0], 16)
        chunk = raw[line + 2:line + 2 + size]
        if size == 0 or len(chunk) < size:
            break
        body.append(chunk)
        n_bytes += size
        marks.append((n_bytes, when(line + 2 + size)))
        at = line + 4 + size
    return b"".join(body), marks


# --- Requests -------------------------------------------------------------------------------------


class Prompts:
    """Texts of about so many tokens; the same key gives the same text."""

    def __init__(self, server):
        # A line through two prompts: what a word takes, and what the template adds.
        few, many = 50, 250
        first, second = (self.count(server, n) for n in (few, many))
        self.tokens_of_word = (second - first) / (many - few)
        self.overhead_tokens = first - few * self.tokens_of_word

    @staticmethod
    def words(n_words, key):
        return " ".join(random.Random(repr(key)).choices(WORDS, k=n_words))

    def count(self, server, n_words):
        with Load(server) as load:
            load.send(chat([user(self.words(n_words, ("count", n_words)))], 1))
            while not load.ended:
                load.step()
        return Stream(server, load.ended[0]).usage["prompt_tokens"]

    def text(self, n_tokens, key):
        n_words = (n_tokens - self.overhead_tokens) / self.tokens_of_word
        return self.words(max(1, round(n_words)), key)


def user(text):
    return {"role": "user", "content": text}


def chat(messages, max_tokens):
    """A request that ends after so many tokens and not before."""
    return {"model": "any", "messages": messages, "max_tokens": max_tokens, "temperature": 0,
            "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}


# --- Measurements ---------------------------------------------------------------------------------


def run_users(server, prompts, n_users, args, key):
    """Tokens in a second, of so many users at once."""
    def request(i, j):
        text = prompts.text(args.prompt_tokens, (key, n_users, i, j))
        return chat([user(text)], args.answer_tokens)

    requests = [[request(i, j) for j in range(args.requests)] for i in range(n_users)]
    with Load(server) as load:
        cpu, begun = time.process_time(), time.perf_counter()
        of_user = {load.send(mine.pop(0)): mine for mine in requests}
        while load.open:
            for exchange in load.step():
                left = of_user.pop(exchange)
                if left:
                    of_user[load.send(left.pop(0))] = left
        cpu = time.process_time() - cpu
    streams = [Stream(server, exchange) for exchange in load.ended]
    tokens = sum(stream.usage["completion_tokens"] for stream in streams)
    if tokens != len(streams) * args.answer_tokens:
        say(f"{server.name}: {tokens} tokens instead of {len(streams) * args.answer_tokens}")
    seconds = max(stream.end for stream in streams) - begun
    return {
        "test": "users", "users": n_users, "tokens": tokens, "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "first_token_ms": [stream.first_ms(server) for stream in streams],
        "prompt_tokens": [stream.usage["prompt_tokens"] for stream in streams],
        "cached_tokens": [stream.cached for stream in streams],
        "client_cpu_share": cpu / seconds,
    }


def run_long(server, prompts, args, key):
    """A long prompt between two answers."""
    texts = [prompts.text(args.prompt_tokens, (key, "short", i)) for i in range(2)]
    short = [chat([user(text)], args.long_answer) for text in texts]
    long_request = chat([user(prompts.text(args.long, (key, "long")))], LONG_ANSWER_TOKENS)
    with Load(server) as load:
        answers = [load.send(request) for request in short]
        while any(len(answer.pieces) < BEGUN_PIECES for answer in answers):
            if load.step():
                raise Failed(f"{server.name} ended an answer before the long prompt came: "
                             "--long-answer is too small")
        long_exchange = load.send(long_request)
        while long_exchange in load.open:
            load.step()
    long_stream = Stream(server, long_exchange)
    first = long_stream.begun + long_stream.first_ms(server) / 1000
    gaps = []
    for answer in answers:
        tokens = Stream(server, answer, is_whole=False).tokens
        if not tokens or tokens[-1] < first:
            say(f"{server.name}: an answer ended within the long prompt, and its last gap is "
                "missing: --long-answer or the contexts are too small")
        # Those that the prompt has a part in.
        beside = [(a, b) for a, b in zip(tokens, tokens[1:]) if b > long_stream.begun and a < first]
        gaps += [1000 * (b - a) for a, b in beside]
    if not gaps:
        raise Failed(f"{server.name}: no token of the answers came beside the long prompt")
    return {
        "test": "long", "gaps_ms": gaps, "first_token_ms": long_stream.first_ms(server),
        "prompt_tokens": long_stream.usage["prompt_tokens"], "cached_tokens": long_stream.cached,
    }


def run_chat(server, prompts, args, key):
    """The second turn of a long chat."""
    messages = [user(prompts.text(args.chat, (key, "chat")))]
    out = {"test": "chat"}
    for turn in ("first", "second"):
        with Load(server) as load:
            load.send(chat(messages, args.answer_tokens))
            while load.open:
                load.step()
        stream = Stream(server, load.ended[0])
        out[turn] = {"first_token_ms": stream.first_ms(server), "cached_tokens": stream.cached,
                     "prompt_tokens": stream.usage["prompt_tokens"]}
        messages += [{"role": "assistant", "content": stream.text}, user("And what else?")]
    return out


def run_turn(server, prompts, args, round_number):
    """All that a server does in a round."""
    for n_users in args.users:
        yield run_users(server, prompts, n_users, args, round_number)
    if args.long:
        yield run_long(server, prompts, args, round_number)
    if args.chat:
        yield run_chat(server, prompts, args, round_number)


def measure(servers, args):
    results = []
    warm = []
    for server in servers:
        server.wait()
        # The first answers also read the model from the disk.
        warm.append(Prompts(server))
        server.signal(signal.SIGSTOP)
    for round_number in range(args.rounds):
        first = round_number % len(servers)
        for server in servers[first:] + servers[:first]:
            say(f"round {round_number + 1} of {args.rounds}: {server.name}")
            server.signal(signal.SIGCONT)
            for result in run_turn(server, warm[0], args, round_number):
                results.append({"round": round_number, "server": server.name, **result})
            server.signal(signal.SIGSTOP)
    return results


# --- Report ---------------------------------------------------------------------------------------


def percentile(values, share):
    """The least value that this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def rows_of(args):
    """Title, unit, which results count, and a figure of one of them."""
    for n in args.users:
        of_users = lambda r, n=n: r["test"] == "users" and r["users"] == n
        who = f"{n} user{'s' if n > 1 else ''}"
        first = f"{who}, first token"
        yield who, "tokens/s", of_users, lambda r: r["tokens_per_second"]
        yield f"{first}, p50", "ms", of_users, lambda r: percentile(r["first_token_ms"], 0.5)
        yield f"{first}, max", "ms", of_users, lambda r: max(r["first_token_ms"])
    if args.long:
        of_long = lambda r: r["test"] == "long"
        beside = f"gaps beside a prompt of {args.long}"
        yield f"{beside}, p50", "ms", of_long, lambda r: percentile(r["gaps_ms"], 0.5)
        yield f"{beside}, p99", "ms", of_long, lambda r: percentile(r["gaps_ms"], 0.99)
        yield f"{beside}, max", "ms", of_long, lambda r: max(r["gaps_ms"])
        yield f"first token of {args.long}", "ms", of_long, lambda r: r["first_token_ms"]
    if args.chat:
        of_chat = lambda r: r["test"] == "chat"
        for turn in ("first", "second"):
            figure = lambda r, turn=turn: r[turn]["first_token_ms"]
            yield f"first token, {turn} turn of {args.chat}", "ms", of_chat, figure


def number(x):
    return f"{x:.{0 if abs(x) >= 100 else 1 if abs(x) >= 10 else 2}f}"


def markdown(state, servers, args):
    names = [server.name for server in servers]
    results = state["results"]
    lines = [
        f"Measured on {state['date']}: {state['machine']}. Prompts of {args.prompt_tokens} tokens, "
        f"answers of {args.answer_tokens}, requests of a user: {args.requests}.",
        f"Rounds: {args.rounds}, of which the table has medians. Ratios above 1: ours is better.",
        "",
        f"| test | unit | {' | '.join(names)} |{''.join(f' over {name} |' for name in names[1:])}",
        f"|---|---|{'---:|' * (2 * len(names) - 1)}",
    ]
    for title, unit, counts_in, figure in rows_of(args):
        values = []
        for name in names:
            seen = [figure(r) for r in results if r["server"] == name and counts_in(r)]
            values.append(statistics.median(seen))
        ours = values[0]
        is_rate = unit == "tokens/s"
        over = [ours / theirs if is_rate else theirs / ours for theirs in values[1:]]
        cells = [number(x) for x in values] + [f"{x:.2f}" for x in over]
        lines.append(f"| {title} | {unit} | {' | '.join(cells)} |")
    loads = [r for r in results if r["test"] == "users"]
    prompts = "; ".join(prompts_of(loads, name) for name in names)
    client = 100 * max(r["client_cpu_share"] for r in loads)
    lines += ["", f"Tokens of a prompt: {prompts}.",
              f"The client took at most {client:.1f} % of a core."]
    return "\n".join(lines)


def prompts_of(loads, name):
    """How long prompts were, and what of them was there, where the server tells that."""
    loads = [r for r in loads if r["server"] == name]
    tokens = [n for r in loads for n in r["prompt_tokens"]]
    cached = [n for r in loads for n in r["cached_tokens"]]
    known = "" if None in cached else f" ({statistics.mean(cached):.0f} cached)"
    return f"{name} {statistics.mean(tokens):.0f}{known}"


def about(servers, args):
    cpu = re.search(r"^model name\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    cpus = len(os.sched_getaffinity(0))
    return {
        "date": datetime.datetime.now().isoformat(timespec="minutes"),
        "machine": f"{cpu[1] if cpu else platform.machine()}, {cpus} CPUs",
        "commands": {server.name: shlex.join(server.words) for server in servers},
        "settings": {key: vars(args)[key] for key in SETTINGS},
    }


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- Command line ---------------------------------------------------------------------------------


def counts(text):
    values = [int(word) for word in text.split(",")]
    if min(values) < 1:
        raise ValueError
    return values


def count(text):
    return counts(text)[0]


def parse_args():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)

    def option(name, of, default, help_text, metavar="N"):
        p.add_argument(name, type=of, default=default, metavar=metavar, help=help_text)

    p.add_argument("--ours", required=True, metavar="CMD",
                   help="command line with {port}; no shell reads it")
    p.add_argument("--peer", action="append", default=[], metavar="NAME=CMD",
                   help="another server; may be given several times")
    option("--users", counts, [1, 8, 16], "users at once (1,8,16)", "N,...")
    option("--requests", count, 3, "requests of each user, one after the other (3)")
    option("--prompt-tokens", count, 110, "tokens of a prompt, about, with the template's (110)")
    option("--answer-tokens", count, 48, "tokens of an answer (48)")
    option("--rounds", count, 3, "turns of each server (3)")
    option("--long", count, None, "also measure with a prompt of N tokens beside two answers")
    option("--long-answer", count, 1500,
           "tokens that these two may have; they are left when the long one ends (1500)")
    option("--chat", count, None, "also measure the second turn of a chat whose first has N tokens")
    option("--json", pathlib.Path, None, "write every figure to this file", "FILE")
    args = p.parse_args()
    for peer in args.peer:
        if not re.match(r"[^=]+=.", peer):
            p.error(f"--peer is {peer!r}, wanted NAME=CMD")
    names = ["ours", *(peer.partition("=")[0] for peer in args.peer)]
    if len(set(names)) < len(names):
        p.error(f"servers are named {', '.join(names)}, wanted different names")
    for command in [args.ours, *args.peer]:
        if "{port}" not in command:
            p.error(f"a command is {command!r}, wanted {{port}} in it")
    args.servers = [("ours", args.ours), *(peer.split("=", 1) for peer in args.peer)]
    return args


def main():
    args = parse_args()
    named = vars(args).pop("servers")
    # A signal that ends the client ends the servers first, as Ctrl-C does.
    for number_of_signal in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number_of_signal, lambda number, _: sys.exit(128 + number))
    servers = []
    try:
        for name, command in named:
            servers.append(Server(name, command))
        state = {**about(servers, args), "results": measure(servers, args)}
    except Failed as error:
        return f"serve.py: {error}"
    except KeyboardInterrupt:
        return "serve.py: interrupted"
    finally:
        for server in servers:
            server.kill()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(state, indent=1) + "\n")
    print(markdown(state, servers, args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
