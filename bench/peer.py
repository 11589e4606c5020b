#!/usr/bin/env python3
"""One measurement of llama.cpp or ik_llama.cpp in a process of its own: one JSON object, with the keys of `modelembed bench -format json`.

compare.py starts it. The packages are llama-cpp-python and ik-llama-cpp-python; how to install them stands in docs/benchmarks.md.
Tokens are pseudo-random ids; prompts longer than 512 go in micro-batches of 512, as both programs do by default.
"""
import argparse
import ctypes
import json
import os
import random
import re
import sys
import time


def private_bytes():
    """Resident bytes that no file stands behind."""
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024


def set_field(struct, name, value):
    """ctypes structs take any attribute: one that is no field would be lost without a word."""
    if name not in [field[0] for field in struct._fields_]:
        raise SystemExit(f"peer.py: this version of the package has no parameter {name}")
    setattr(struct, name, value)


class Llama:
    """llama.cpp: the default copies weights into private memory in another layout; `repack=False` leaves that out."""

    def __init__(self, args, repack):
        import llama_cpp as api
        self.api, self.args = api, args
        self.log = api.llama_log_callback(lambda *_: None)  # kept: the library holds the pointer only
        api.llama_log_set(self.log, ctypes.c_void_p(0))
        api.llama_backend_init()
        self.params = api.llama_model_default_params()
        set_field(self.params, "load_mode", api.LLAMA_LOAD_MODE_MMAP)
        set_field(self.params, "use_extra_bufts", repack)

    def load(self, n_ctx):
        api, args = self.api, self.args
        self.model = api.llama_model_load_from_file(args.model.encode(), self.params)
        assert self.model, "the model does not load"
        params = api.llama_context_default_params()
        for name, value in [("n_ctx", n_ctx), ("n_batch", max(n_ctx, 32)), ("n_ubatch", 512),
                            ("n_threads", args.threads), ("n_threads_batch", args.threads)]:
            set_field(params, name, value)
        self.ctx = api.llama_init_from_model(self.model, params)
        assert self.ctx, "no context"
        self.memory = api.llama_get_memory(self.ctx)
        self.n_vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))

    def feed(self, tokens):
        array = (self.api.llama_token * len(tokens))(*tokens)
        assert self.api.llama_decode(self.ctx, self.api.llama_batch_get_one(array, len(tokens))) == 0
        self.api.llama_synchronize(self.ctx)

    def truncate(self, n):
        if n == 0:
            self.api.llama_memory_clear(self.memory, True)
        else:
            assert self.api.llama_memory_seq_rm(self.memory, 0, n, -1)


class Ik:
    """ik_llama.cpp, with flash attention as it recommends."""

    def __init__(self, args):
        from ik_llama_cpp import _ctypes_api as api
        self.api, self.args, self.n_past = api, args, 0
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # it logs there
        api.llama_backend_init()

    def load(self, n_ctx):
        api, args = self.api, self.args
        self.model = api.llama_model_load_from_file(args.model.encode(), api.llama_model_default_params())
        assert self.model, "the model does not load"
        params = api.llama_context_default_params()
        for name, value in [("n_ctx", n_ctx), ("n_batch", max(n_ctx, 32)), ("n_ubatch", 512), ("flash_attn", True),
                            ("n_threads", args.threads), ("n_threads_batch", args.threads)]:
            set_field(params, name, value)
        self.ctx = api.llama_init_from_model(self.model, params)
        assert self.ctx, "no context"
        self.n_vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))

    def feed(self, tokens):
        batch = self.api.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, self.n_past + i, 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i == len(tokens) - 1
        assert self.api.llama_decode(self.ctx, batch) == 0
        self.api.llama_batch_free(batch)
        self.n_past += len(tokens)

    def truncate(self, n):
        if n == self.n_past:
            return
        if n != 0:  # the package offers no call that keeps a part
            raise SystemExit(f"peer.py: ik_llama.cpp can be measured once a process behind {n} tokens: --repeat 1, prompt or gen")
        self.api.llama_kv_cache_clear(self.ctx)
        self.n_past = n


def read_ids(path, wanted, n_vocab):
    """Ids with anything but digits between them, as `modelembed bench -write-ids` writes them."""
    try:
        with open(path) as f:
            tokens = [int(word) for word in re.findall("[0-9]+", f.read())]
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"peer.py: cannot read {path}: {error}")
    beyond = [token for token in tokens if token >= n_vocab]
    if beyond:
        raise SystemExit(f"peer.py: {path}: {beyond[0]} is no token; the vocabulary has {n_vocab}, from 0 on")
    if len(tokens) < wanted:
        raise SystemExit(f"peer.py: {path} has {len(tokens)} ids, {wanted} are wanted")
    return tokens[:wanted]


def micros(call):
    start = time.perf_counter()
    call()
    return round((time.perf_counter() - start) * 1e6)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--peer", required=True, choices=["llama", "llama-norepack", "ik"])
    p.add_argument("--model", required=True)
    p.add_argument("--threads", type=int, required=True)
    p.add_argument("--prompt", type=int, default=0)
    p.add_argument("--gen", type=int, default=0)
    p.add_argument("--depth", type=int, default=0)
    p.add_argument("--short", type=lambda text: [int(n) for n in text.split(",")], default=[])
    p.add_argument("--repeat", type=int, default=1)
    p.add_argument("--ids", help="take the tokens from a file, as `modelembed bench -ids` does")
    args = p.parse_args()
    peer = Ik(args) if args.peer == "ik" else Llama(args, repack=args.peer == "llama")
    wanted = args.depth + max([args.prompt, args.gen + 1] + args.short)
    idle_bytes = private_bytes()  # Python itself and the library
    start = time.perf_counter()
    peer.load((wanted + 255) // 256 * 256)
    load_ms = (time.perf_counter() - start) * 1e3
    rng = random.Random(42)
    if args.ids:
        tokens = read_ids(args.ids, wanted, peer.n_vocab)
    else:
        tokens = [rng.randrange(peer.n_vocab) for _ in range(wanted)]
    behind = tokens[args.depth:]
    out = {"peer": args.peer, "threads": args.threads, "prompt_tokens": args.prompt, "gen_tokens": args.gen,
           "depth": args.depth, "load_ms": load_ms, "prompt_us": [], "decode_us": [], "short_prompts": []}
    if args.depth:
        out["depth_us"] = micros(lambda: peer.feed(tokens[:args.depth]))
    for i in range(args.repeat):
        if args.prompt:
            peer.truncate(args.depth)
            out["prompt_us"].append(micros(lambda: peer.feed(behind[:args.prompt])))
            if i == 0:
                out["load_to_first_token_ms"] = (time.perf_counter() - start) * 1e3
        if args.gen:
            peer.truncate(args.depth)
            peer.feed(behind[:1])
            out["decode_us"].append(micros(lambda: [peer.feed([token]) for token in behind[1:args.gen + 1]]))
    for n in args.short:
        def short():
            peer.feed(behind[:n])
        runs = []
        for _ in range(args.repeat):
            peer.truncate(args.depth)
            runs.append(micros(short))
        out["short_prompts"].append({"tokens": n, "us": runs})
    out["private_bytes"] = private_bytes() - idle_bytes
    print(json.dumps(out))


main()
