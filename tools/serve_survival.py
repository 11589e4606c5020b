#!/usr/bin/env python3
"""Whether `modelembed serve` survives its clients.

    tools/serve_survival.py target/release/modelembed models/SmolLM2-135M-Instruct.Q4_1.gguf

Starts the server with few pages and sends a seeded random mix of requests, many at once: answers
that are read to their end, whole and as streams; clients that leave while they wait, within the
prompt, while tokens come; that never read; that send a part of a request and vanish; that are
killed; and requests that are wrong in all ways. Every twentieth request is a probe, which must get
the same text and log-probabilities, to the last bit, as before all others came.

When all is over and nothing is left to do, the server must have given everything back: requests,
pages (but those of the tree of prefixes), descriptors, threads and memory. It may have answered
nothing with 5xx, must still answer, and end with code 0 when it is told to. Exit code 1 with a list
of what was wrong, else one line. Needs Linux. Memory is what no file stands behind, so without the
model's mapping (`Anonymous` in smaps_rollup). All pages are written to before it begins, and the
first third of the requests warms up what else is allocated: memory may not grow from there.
"""
import argparse
import collections
import http.client
import json
import os
import pathlib
import queue
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

# Clients at the same time, some of whom wait: the server writes 8 answers at once.
CLIENTS = 20
SEQUENCES = 8
CTX_TOKENS = 2048
PAGE_TOKENS = 256
# Every so many requests one is a probe.
PROBE_EVERY = 20
# How long an answer may take: a minute was seen for long ones on two cores with other work to do.
ANSWER_SECONDS = 180
# The server leaves clients that do not read after a minute, and idle threads end after ten seconds.
IDLE_SECONDS = 90
THREADS_SECONDS = 20
END_SECONDS = 10
DRAIN_SECONDS = 4
# Descriptors more than at the start that are no leak: of a connection that is just ending.
SPARE_DESCRIPTORS = 2
# Failures after which no more requests are sent.
MOST_FAILURES = 20

WORDS = """
the of and to in is was it for on are as with his they at be this from have or by one had not but
what all were when we there can an your which their said if do will each about how up out them then
she many some so these would other into has more her two like him see time could no make than first
been its who now people my made over did down only héllo 世界 Ω <|im_end|> {} \\n 12345
""".split()
SYSTEMS = [" ".join(WORDS[i:i + 30]) for i in (0, 20, 40)]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


class Wrong(Exception):
    """What a check found."""


def check(is_right, what):
    if not is_right:
        raise Wrong(what)


# --- The server -----------------------------------------------------------------------------------


class Server:
    def __init__(self, args):
        self.log = tempfile.TemporaryFile()
        command = [args.binary, "serve", "-model", args.model, "-port", "0", "-log", "off",
                   "-sequences", str(SEQUENCES), "-ctx", str(CTX_TOKENS),
                   "-kv-bytes", args.kv_bytes, "-drain", str(DRAIN_SECONDS)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, start_new_session=True)
        self.proc = pathlib.Path(f"/proc/{self.process.pid}")
        deadline = time.monotonic() + 60
        self.port = None
        # At the start: set before the load comes.
        self.descriptors = self.threads = 0
        while self.port is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                sys.exit(f"serve_survival.py: the server did not start:\n{self.tail()}")
            time.sleep(0.05)
            found = re.search(r"^Serving .* on http://127\.0\.0\.1:(\d+):", self.printed(), re.M)
            self.port = found and int(found[1])

    def printed(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def tail(self):
        return self.printed()[-3000:].strip()

    def metrics(self):
        """Figures by their names and labels, but for the label of the model."""
        text = ask(self, "GET", "/metrics").text()
        figures = re.findall(r'^([\w:]+)\{model_name="[^"]*",?(.*)\} (\S+)$', text, re.M)
        return {name + labels: float(value) for name, labels, value in figures}

    def requests_left(self):
        now, kinds = self.metrics(), ("running", "prompt", "queued")
        return {kind: now[f"modelembed_requests_{kind}"] for kind in kinds}

    def n_descriptors(self):
        return len(os.listdir(self.proc / "fd"))

    def n_threads(self):
        return len(os.listdir(self.proc / "task"))

    def memory_mib(self):
        text = (self.proc / "smaps_rollup").read_text()
        return int(re.search(r"^Anonymous:\s+(\d+) kB", text, re.M)[1]) / 1024

    def wait_idle(self):
        """Until nothing is left to do, and the connections have ended."""
        most = self.descriptors + SPARE_DESCRIPTORS
        is_idle = lambda: sum(self.requests_left().values()) == 0 and self.n_descriptors() <= most
        if not wait(IDLE_SECONDS, is_idle):
            raise Wrong(f"not idle after {IDLE_SECONDS} s: requests {self.requests_left()}, "
                        f"{self.n_descriptors()} descriptors, {self.descriptors} at the start")

    def kill(self):
        self.process.kill()
        self.process.wait()


def wait(seconds, is_so):
    """Whether it comes to be so within this time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


# --- A client -------------------------------------------------------------------------------------


class Reply:
    """An answer that is being read, within the time that it may take."""

    def __init__(self, connection, method):
        self.deadline = time.monotonic() + ANSWER_SECONDS
        self.response = http.client.HTTPResponse(connection, method=method)
        self.response.begin()
        self.status = self.response.status

    def want(self, status, about):
        """Checks the status."""
        if self.status != status:
            about, text = str(about)[:400], self.text()[:1000]
            raise Wrong(f"{self.status} instead of {status} for {about}: {text}")
        return self

    def pieces(self):
        while piece := self.response.read1(1 << 16):
            check(time.monotonic() < self.deadline, f"no end within {ANSWER_SECONDS} s")
            yield piece

    def text(self):
        return b"".join(self.pieces()).decode()

    def json(self):
        return json.loads(self.text())

    def events(self):
        """What a stream says, without its end."""
        left = b""
        for piece in self.pieces():
            *whole, left = (left + piece).split(b"\n\n")
            for event in whole:
                check(event.startswith(b"data: "), f"a stream has {event[:100]!r}")
                if event == b"data: [DONE]":
                    check(not left, f"behind the stream's end is {left[:100]!r}")
                    return
                yield json.loads(event[6:])
        raise Wrong("a stream has no end")


def connect(server, takes_little=False):
    """A connection; one that takes little is full after some 10 kB."""
    connection = socket.socket()
    connection.settimeout(ANSWER_SECONDS)
    if takes_little:
        # Small segments keep the server's buffer small, too.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    connection.connect(("127.0.0.1", server.port))
    return connection


def leave(connection, rng):
    """Closes the connection, or breaks it: what was not sent is lost then."""
    if rng.random() < 0.5:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def message(method, path, body=b"", headers=()):
    """The bytes of a request; a body that is no bytes is written as JSON."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    rows = {"Host": "localhost", "Connection": "close"}
    if method == "POST":
        rows |= {"Content-Type": "application/json", "Content-Length": len(body)}
    rows |= dict(headers)
    head = "".join(f"{name}: {value}\r\n" for name, value in rows.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def ask(server, method, path, body=b"", headers=()):
    connection = connect(server)
    connection.sendall(message(method, path, body, headers))
    with connection:
        return Reply(connection, method)


# --- Requests that are right ----------------------------------------------------------------------


def words(rng, least, most):
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most)))


def tokens(rng, least, most):
    return [rng.randrange(100, 10_000) for _ in range(rng.randint(least, most))]


def any_request(rng, **fields):
    """A path and a body that is answered with 200."""
    path = rng.choice([CHAT, CHAT, COMPLETIONS])
    text = words(rng, 3, 60)
    if path == CHAT:
        system = [{"role": "system", "content": rng.choice(SYSTEMS)}] if rng.random() < 0.6 else []
        body = {"messages": [*system, {"role": "user", "content": text}]}
    else:
        body = {"prompt": rng.choice([text, [text, "and"], [5, 6, 7], [[5, 6], [7]]])}
    body |= {"max_tokens": rng.randint(1, 16), "ignore_eos": rng.random() < 0.3}
    if rng.random() < 0.5:
        body |= {"temperature": 0}
    else:
        body |= {"temperature": 1.1, "top_p": 0.95, "seed": rng.randrange(1 << 40),
                 "n": rng.choice([1, 1, 2])}
    if rng.random() < 0.2:
        body |= {"logprobs": True, "top_logprobs": 4} if path == CHAT else {"logprobs": 3}
    if rng.random() < 0.2:
        body |= {"stop": ["e", " th"], "repeat_penalty": 1.1, "logit_bias": {"5": -100}}
    if rng.random() < 0.1:
        body |= {"cache_salt": rng.choice("ab")}
    return path, body | fields


def n_choices(body):
    prompt = body.get("prompt")
    n_prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    return body.get("n", 1) * n_prompts


def check_whole(body, reply):
    answer = reply.want(200, body).json()
    check_end(body, [choice["finish_reason"] for choice in answer["choices"]], answer["usage"])
    return "answered"


def check_end(body, finished, usage):
    """Whether all choices ended, each for a reason, with no more tokens than were wanted."""
    n = n_choices(body)
    is_right = len(finished) == n and set(finished) <= {"stop", "length"}
    check(is_right, f"{n} choices ended with {finished}")
    check(0 <= usage["completion_tokens"] <= n * body["max_tokens"], f"the usage is {usage}")


def whole(server, rng):
    path, body = any_request(rng)
    return check_whole(body, ask(server, "POST", path, body))


def streamed(server, rng):
    path, body = any_request(rng, stream=True, stream_options={"include_usage": True})
    events = list(ask(server, "POST", path, body).want(200, body).events())
    check(all("error" not in event for event in events), f"a stream ends with {events[-1]}")
    reasons = [choice.get("finish_reason") for event in events for choice in event["choices"]]
    check_end(body, [reason for reason in reasons if reason], events[-1]["usage"])
    return "answered"


def long_prompt(server, rng):
    """Of several pages: others have to leave the tree, or go back to the queue."""
    body = {"prompt": tokens(rng, 600, 1500), "max_tokens": 4}
    return check_whole(body, ask(server, "POST", COMPLETIONS, body))


def long_answer(server, rng):
    """Of two pages more than it began with: eight of them take more than there are, so that some go
    back to the queue and are computed again."""
    body = {"prompt": tokens(rng, 250, 255), "max_tokens": 330, "ignore_eos": True}
    return check_whole(body, ask(server, "POST", COMPLETIONS, body))


def endless_request(server, rng):
    """As many tokens as there could be, of which a stop text lets few come."""
    body = {"messages": [{"role": "user", "content": words(rng, 3, 20)}], "temperature": 0,
            "max_tokens": rng.choice([1 << 40, (1 << 63) - 1]), "stop": list("aeiou ,.\n")}
    return check_whole(body, ask(server, "POST", CHAT, body))


def other_endpoints(server, rng):
    """What is answered besides, on one connection that is kept."""
    rows = [
        ("GET", "/health", b""), ("GET", "/livez", b""), ("GET", "/v1/models/", b""),
        ("GET", "/metrics", b""), ("GET", "/props", b""), ("GET", "/openapi.json", b""),
        ("HEAD", "/", b""),
        ("POST", "/tokenize", {"content": words(rng, 1, 200), "with_pieces": True}),
        ("POST", "/detokenize", {"tokens": [1, 2, 300, 4000]}),
        ("POST", "/apply-template", {"messages": [{"role": "user", "content": words(rng, 1, 9)}]}),
    ]
    with connect(server) as connection:
        for method, path, body in rng.sample(rows, 4):
            connection.sendall(message(method, path, body, [("Connection", None)]))
            Reply(connection, method).want(200, (method, path)).text()
    return "answered"


def trickled(server, rng):
    """A request that comes in small pieces, with chunks of its own."""
    path, wanted = any_request(rng)
    body = json.dumps(wanted).encode()
    cuts = sorted(rng.sample(range(1, len(body)), 3))
    parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)])]
    headers = [("Content-Length", None), ("Transfer-Encoding", "chunked")]
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
    with connect(server) as connection:
        for sent in [message("POST", path, headers=headers), *chunks, b"0\r\n\r\n"]:
            connection.sendall(sent)
            time.sleep(0.01)
        return check_whole(wanted, Reply(connection, "POST"))


# --- Clients that leave ---------------------------------------------------------------------------


def left_waiting(server, rng):
    """Gone as soon as the request is taken, or before: most of these are in the queue."""
    path, body = any_request(rng, stream=rng.random() < 0.7)
    connection = connect(server)
    connection.sendall(message("POST", path, body))
    if body["stream"] and rng.random() < 0.7:
        check(connection.recv(12) == b"HTTP/1.1 200", "a stream has no head with 200")
    else:
        time.sleep(rng.random() * 0.1)
    leave(connection, rng)
    return "left"


def left_within_prompt(server, rng):
    """A long prompt, and gone while it is computed."""
    body = {"prompt": tokens(rng, 800, 1800), "max_tokens": 5, "stream": rng.random() < 0.5}
    connection = connect(server)
    connection.sendall(message("POST", COMPLETIONS, body))
    time.sleep(rng.uniform(0.05, 0.6))
    leave(connection, rng)
    return "left"


def left_within_answer(server, rng):
    """Gone after some tokens."""
    path, body = any_request(rng, stream=True, max_tokens=300, ignore_eos=True)
    body.pop("stop", None)
    connection = connect(server)
    connection.sendall(message("POST", path, body))
    reply = Reply(connection, "POST").want(200, body)
    for n, _ in enumerate(reply.events()):
        if n >= rng.randint(2, 20):
            break
    # The file that the response reads from holds the connection, too.
    reply.response.close()
    leave(connection, rng)
    return "left"


def half_closed(server, rng):
    """Says that it sends no more: no more is wanted of it than that the connection ends."""
    path, body = any_request(rng, stream=rng.random() < 0.5)
    with connect(server) as connection:
        connection.sendall(message("POST", path, body))
        connection.shutdown(socket.SHUT_WR)
        try:
            while connection.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
    return "left"


def unread_request(rng, max_tokens):
    """A stream of which every token takes more than a kB."""
    return message("POST", CHAT, {
        "messages": [{"role": "user", "content": words(rng, 3, 30)}], "max_tokens": max_tokens,
        "stream": True, "ignore_eos": True, "logprobs": True, "top_logprobs": 20,
    })


def never_read(server, rng):
    """Reads nothing, until the connection is full and longer, and leaves."""
    connection = connect(server, takes_little=True)
    if rng.random() < 0.5:
        connection.sendall(unread_request(rng, 120))
    else:
        # An answer at once, of some 500 kB.
        body = {"content": words(rng, 10_000, 10_000), "with_pieces": True}
        connection.sendall(message("POST", "/tokenize", body))
    time.sleep(rng.uniform(1, 5))
    leave(connection, rng)
    return "left"


def half_sent(server, rng):
    """A part of a head or a body, and gone."""
    path, body = any_request(rng)
    sent = message("POST", path, body)
    connection = connect(server)
    connection.sendall(sent[:rng.randrange(len(sent))])
    time.sleep(rng.choice([0, rng.random() * 0.5]))
    leave(connection, rng)
    return "left"


KILLED = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(sys.stdin.buffer.read())
while connection.recv(1000):
    pass
"""


def killed(server, rng):
    """A process of its own that is killed in the middle."""
    path, body = any_request(rng, stream=rng.random() < 0.5, max_tokens=200, ignore_eos=True)
    body.pop("stop", None)
    client = subprocess.Popen([sys.executable, "-S", "-E", "-c", KILLED, str(server.port)],
                              stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    client.stdin.write(message("POST", path, body))
    client.stdin.close()
    time.sleep(rng.uniform(0.1, 1.5))
    client.send_signal(signal.SIGKILL)
    client.wait()
    return "left"


# --- Requests that are wrong ----------------------------------------------------------------------


HI = [{"role": "user", "content": "Hi"}]
DEEP = b"[" * 5000
# No JSON, or not of the right kind.
NO_JSON = [
    b"", b"{", b"[", b"\0", b"nul", b"5", b"null", b"[]", b'"a"', b"{}", b"{}{}",
    b"{'messages': 1}", b'{"messages": [{"role": "user", "content": "Hi"}]', DEEP,
    DEEP + b"]" * 5000, b'{"messages": ' + DEEP + b"]" * 5000 + b"}",
    b'{"a":' * 200 + b"1" + b"}" * 200,
    b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
    b'{"messages": [{"role": "user", "content": "\xc3"}]}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"messages": [{"role": "user", "content": "a\nb"}]}',
    b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": 1e999}',
]
WRONG_MESSAGES = [
    [], {}, "Hi", 5, None, [5], [[]], [{}], [{"role": "user"}], [{"content": "Hi"}], [5] * 20_000,
    [{"role": 5, "content": "Hi"}], [{"role": "<|im_start|>", "content": "Hi"}],
    [{"role": "assistant", "tool_calls": [1]}], [{"role": "user", "content": "word " * 5000}],
    *([{"role": "user", "content": content}] for content in (
        5, [5], [{"type": "text"}],
        [{"type": "image_url", "image_url": {"url": "http://localhost/"}}],
    )),
]
# Beside messages that are right.
WRONG_FIELDS = [
    {"max_tokens": -2}, {"max_tokens": 1.5}, {"max_tokens": "5"}, {"max_tokens": 10**30},
    {"max_tokens": [1]}, {"min_tokens": 5000, "max_tokens": 6000}, {"temperature": -1},
    {"temperature": "hot"}, {"temperature": 1e300}, {"top_p": 2}, {"top_k": 1e300}, {"min_p": -1},
    {"repeat_penalty": 0}, {"seed": 1.5}, {"seed": 10**30}, {"n": 0}, {"n": 9}, {"n": "1"},
    {"stop": 5}, {"stop": [5]}, {"stop": ["a"] * 17}, {"stop": "a" * 2000},
    {"logit_bias": {"x": 1}}, {"logit_bias": {"1000000": 1}}, {"logit_bias": [[1]]},
    {"stop_token_ids": [-1]},
    {"stream": "yes"}, {"stream_options": 5}, {"logprobs": 5}, {"top_logprobs": 2},
    {"logprobs": True, "top_logprobs": 21}, {"tools": [1]}, {"tools": {}},
    {"cache_salt": "a" * 300}, {"chat_template_kwargs": {"messages": []}}, {"response_format": []},
]
WRONG_PROMPTS = [
    {}, {"prompt": None}, {"prompt": []}, {"prompt": [[]]}, {"prompt": [-1]}, {"prompt": [10**9]},
    {"prompt": [1.5]}, {"prompt": [1, "a"]}, {"prompt": {"a": 1}}, {"prompt": ["a"] * 129},
    {"prompt": "a" * 200_000}, {"prompt": [5] * CTX_TOKENS}, {"prompt": "a", "suffix": "b"},
    {"prompt": "a", "echo": True, "stream": True}, {"prompt": "a", "logprobs": 21},
    {"prompt": "a", "n": 100},
]
# What is unknown is left alone.
ODD_FIELDS = [
    {"unknown": {"a": [[]]}}, {"model": 5}, {"user": None, "store": True}, {"max_tokens": 1.0},
    {"top_k": -1}, {"seed": -1}, {"seed": (1 << 64) - 1}, {"stop": ""}, {"temperature": 1e30},
    {"stop": [], "logit_bias": {}},
]
ODD_JSON = [
    b'{"messages": [], "max_tokens": 1, "messages": [{"role": "user", "content": "\\u0000"}]}',
    b'{"x": ' + b"[" * 100 + b"]" * 100 + b', "max_tokens": 1, "messages": [{"role": "user", '
    b'"content": [{"type": "text", "text": "Hi"}]}]}',
]
# Paths, bodies and the status that they get.
WRONG_BODIES = [
    *((CHAT, body, 400) for body in NO_JSON),
    *((CHAT, {"messages": messages}, 400) for messages in WRONG_MESSAGES),
    *((CHAT, {"messages": HI, "max_tokens": 2, **fields}, 400) for fields in WRONG_FIELDS),
    *((COMPLETIONS, body, 400) for body in WRONG_PROMPTS),
    *(("/tokenize", body, 400) for body in ({}, {"content": 5}, b"\xff")),
    *(("/detokenize", body, 400) for body in ({}, {"tokens": "a"}, {"tokens": [-1, 10**9]})),
    *(("/apply-template", body, 400) for body in ({}, {"messages": []})),
    ("/v1/nothing", {}, 404), ("/v1/models", {}, 405),
    *((CHAT, {"messages": HI, "max_tokens": 2, **fields}, 200) for fields in ODD_FIELDS),
    *((CHAT, body, 200) for body in ODD_JSON),
]


def wrong_bytes():
    """Whole requests, and which statuses they may get; None: the connection may end without."""
    post = lambda *headers: message("POST", CHAT, {"messages": HI, "max_tokens": 1}, headers)
    yield post(("Content-Type", "text/plain")), {415}
    yield post(("Content-Type", None)), {415}
    yield post(("Host", "evil.example")), {403}
    yield post(("Origin", "http://evil.example")), {403}
    yield post(("Sec-Fetch-Site", "cross-site")), {403}
    yield post(("Content-Length", 1 << 40)), {413}
    yield post(("Content-Length", -5)), {400, None}
    yield post(("Content-Length", 10**30)), {400, 413, None}
    yield post(("Content-Length", None), ("Transfer-Encoding", "chunked")), {400, None}
    yield post(("X-Long", "a" * 200_000)), {400, 431, None}
    yield message("GET", CHAT), {405}
    yield message("DELETE", "/"), {405}
    yield message("GET", "/%ff/../../etc/passwd"), {404}
    yield message("GET", "/" + "a" * 50_000), {400, 404, 414, 431, None}
    yield message("GET", "/health", headers=[(f"X-{i}", i) for i in range(1000)]), {400, 431, None}
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n", {400, None}
    yield b"GET\r\n\r\n", {400, None}
    yield b"GET / HTTP/9.9\r\n\r\n", {400, 505, None}
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 404, 505, None}


WRONG_BYTES = list(wrong_bytes())


def wrong_body(server, rng):
    path, body, status = rng.choice(WRONG_BODIES)
    answer = ask(server, "POST", path, body).want(status, (path, body)).json()
    check(status == 200 or answer["error"]["message"], f"{status} says {answer}")
    return "answered" if status == 200 else "refused"


def wrong_request(server, rng):
    sent, statuses = rng.choice(WRONG_BYTES)
    with connect(server) as connection:
        try:
            connection.sendall(sent)
            status = Reply(connection, "POST").status
        except (ConnectionError, http.client.RemoteDisconnected):
            status = None
    check(status in statuses, f"{status} instead of {statuses} for {sent[:200]!r}")
    return "refused"


def spoilt(server, rng):
    """A request with a byte changed or its end cut off: taken or refused, but answered."""
    path, body = any_request(rng, max_completion_tokens=5, max_tokens=5, n=1)
    body = bytearray(json.dumps(body).encode())
    if rng.random() < 0.3:
        del body[rng.randrange(len(body)):]
    else:
        body[rng.randrange(len(body))] = rng.choice(b'"{[0-9 ,:\0\xff')
    reply = ask(server, "POST", path, bytes(body))
    text = reply.text()
    check(reply.status == 200 or 400 <= reply.status < 500, f"{reply.status} {text} for {body}")
    return "answered" if reply.status == 200 else "refused"


# --- The run --------------------------------------------------------------------------------------

# How often each is drawn.
MIX = {
    whole: 15, streamed: 15, long_prompt: 1, endless_request: 2, other_endpoints: 5, trickled: 3,
    left_waiting: 9, left_within_prompt: 2, left_within_answer: 7, half_closed: 3, never_read: 2,
    half_sent: 8, killed: 3, wrong_body: 15, wrong_request: 5, spoilt: 6,
}
PROBE = {
    "messages": [{"role": "system", "content": SYSTEMS[0]},
                 {"role": "user", "content": "Why is the sky blue?"}],
    "max_tokens": 20, "temperature": 0, "seed": 7, "ignore_eos": True, "logprobs": True,
    "top_logprobs": 5,
}


def probe(server, wanted=None):
    """The probe's answer, which must be the wanted one."""
    choices = ask(server, "POST", CHAT, PROBE).want(200, "a probe").json()["choices"]
    check(wanted in (None, choices), f"other bits:\n  {choices}\ninstead of\n  {wanted}")
    return choices


class Run:
    def __init__(self, server, seed):
        self.server = server
        self.seed = seed
        self.wanted = None
        # Requests for long answers, all at once.
        self.crowd = ()
        self.counts = collections.Counter()
        self.failures = []
        self.slowest = (0, "")

    def attempt(self, name, action, *args):
        """Notes what goes wrong."""
        begun = time.monotonic()
        try:
            return action(*args)
        except Exception as error:
            what = str(error) if isinstance(error, Wrong) else repr(error)
            self.failures.append(f"{name}: {what}")
            print(f"serve_survival.py: {name}: {what}", file=sys.stderr, flush=True)
        finally:
            self.slowest = max(self.slowest, (time.monotonic() - begun, name))

    def one(self, number):
        """The request of this number: what it is comes of the seed alone."""
        rng = random.Random(f"{self.seed}-{number}")
        action = rng.choices(list(MIX), weights=MIX.values())[0]
        if number in self.crowd:
            action = long_answer
        if number % PROBE_EVERY == 0:
            outcome = self.attempt(f"probe {number}", probe, self.server, self.wanted) and "probes"
        else:
            outcome = self.attempt(f"{action.__name__} {number}", action, self.server, rng)
        self.counts[outcome or "failed"] += 1

    def requests(self, numbers):
        """Sends these, several at a time, and waits until they are over."""
        left = queue.SimpleQueue()
        for number in numbers:
            left.put(number)

        def client():
            while len(self.failures) < MOST_FAILURES and self.server.process.poll() is None:
                try:
                    number = left.get_nowait()
                except queue.Empty:
                    return
                self.one(number)

        clients = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        code = self.server.process.poll()
        check(code is None, f"the server ended with {code}:\n{self.server.tail()}")
        self.server.wait_idle()

    def all(self, n_requests, most_mib):
        """Everything. Returns what to say of it."""
        server, begun = self.server, time.monotonic()
        server.threads = server.n_threads()
        self.wanted = probe(server)
        server.descriptors = server.n_descriptors()
        fill_pages(server)
        third = n_requests // 3
        self.crowd = range(2 * third, 2 * third + SEQUENCES + 1)
        self.requests(range(third))
        mib = server.memory_mib()
        # Somebody who never reads, and does not leave.
        stubborn = connect(server, takes_little=True)
        stubborn.sendall(unread_request(random.Random(self.seed), 200))
        self.requests(range(third, n_requests))
        grown = server.memory_mib() - mib
        self.attempt("memory", check, grown <= most_mib, f"{mib:.1f} MiB grew by {grown:.1f}")
        self.attempt("requests and pages", check_metrics, server)
        now = server.metrics()
        self.attempt("threads", check_threads, server)
        self.attempt("the probe at the end", probe, server, self.wanted)
        for path in ("/health", "/livez"):
            self.attempt(path, lambda path: ask(server, "GET", path).want(200, path).text(), path)
        self.attempt("the end", check_end_of_server, server)
        stubborn.close()
        counts = ", ".join(f"{n} {what}" for what, n in sorted(self.counts.items()))
        seconds = time.monotonic() - begun
        total = lambda what: now[f"modelembed_{what}_total"]
        evicted, again = total("evicted_pages"), total("requests_preempted")
        return (f"{n_requests} requests in {seconds:.0f} s: {counts}; {evicted:.0f} evicted pages, "
                f"{again:.0f} preempted answers; memory {mib:.0f} MiB {grown:+.1f}; "
                f"{self.slowest[1]} took longest, {self.slowest[0]:.1f} s")


def fill_pages(server):
    """Has all pages written to, so that no memory comes of them later."""
    rng = random.Random(0)
    n_tokens = CTX_TOKENS - CTX_TOKENS // 8
    n_pages = server.metrics()["modelembed_kv_pages"]
    for _ in range(int(n_pages * PAGE_TOKENS / n_tokens) + 1):
        body = {"prompt": tokens(rng, n_tokens, n_tokens), "max_tokens": 1}
        check_whole(body, ask(server, "POST", COMPLETIONS, body))


def check_metrics(server):
    """Whether every request came to an end of some kind, and pages are the tree's alone."""
    now = server.metrics()
    count = lambda what: now[f"modelembed_requests_{what}_total"]
    ended = {what: count(what) for what in ("finished", "cancelled", "slow", "failed")}
    check(sum(ended.values()) == count("accepted"), f"{count('accepted')} accepted, ended: {ended}")
    check(ended["failed"] == 0, f"answers failed: {ended}")
    used, kept, total = (now[f"modelembed_kv_pages{which}"] for which in ("_used", "_cached", ""))
    check(used == kept <= total, f"{used} pages in use, {kept} kept in the tree, of {total}")
    failed = [name for name in now if re.search(r'^modelembed_http_requests.*status="5', name)]
    check(not failed, f"answers with 5xx: {failed}")


def check_threads(server):
    is_same = lambda: server.n_threads() == server.threads
    check(wait(THREADS_SECONDS, is_same), f"{server.n_threads()}, {server.threads} at the start")


def check_end_of_server(server):
    """Whether it ends when it is told to, and has not panicked."""
    server.process.terminate()
    try:
        code = server.process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        raise Wrong(f"it goes on {END_SECONDS} s after SIGTERM") from None
    check(code == 0, f"code {code}:\n{server.tail()}")
    check("panicked" not in server.printed(), server.tail())


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary", help="the command modelembed")
    p.add_argument("model", help="a GGUF file of a small model with a chat template")
    p.add_argument("--requests", type=int, default=1000, metavar="N", help="default: 1000")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="of the mix (1)")
    p.add_argument("--kv-bytes", default="100M", metavar="SIZE",
                   help="of the server; so little that pages run out (100M)")
    p.add_argument("--memory-mib", type=float, default=16, metavar="N",
                   help="what memory may grow by behind the first third (16)")
    args = p.parse_args()
    # A signal that ends this ends the server, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    server = Server(args)
    run = Run(server, args.seed)
    said = None
    try:
        said = run.attempt("the run", run.all, args.requests, args.memory_mib)
    except KeyboardInterrupt:
        sys.exit("serve_survival.py: interrupted")
    finally:
        code = server.process.poll()
        server.kill()
    if code:
        run.failures.append(f"the server ended with {code}:\n{server.tail()}")
    if run.failures or said is None:
        sys.exit("\n".join([f"{len(run.failures)} things were wrong:", *run.failures]))
    print(f"survived {said}")


if __name__ == "__main__":
    main()
