#!/usr/bin/env python3
"""What llama.cpp's sampler chain keeps, for crates/engine/tests/it/sampler.rs and sampler_dry.rs.

    python tools/sampler_goldens.py MODELS

For each case: logits from a formula that the test repeats exactly (integers, and one division by a power of two), the
options, tokens accepted before, and then the ids kept after the whole chain with their probabilities, sorted by id.
Cases have no two equal logits near a cut, because llama.cpp's order of equals is not defined, and no cut that depends
on the rounding of llama.cpp's f32 sums over a large vocabulary: `exact` must keep the same tokens in f64.

llama.cpp's random generator is another one, so what depends on a draw is taken where none decides: XTC at the
probability 1, Mirostat's bound `mu` (read from the sampler's memory) before and after the token that llama.cpp chose.

`random` are the first 64-bit draws of the named generator (ChaCha8, seed as the first 8 bytes of the key), from the
definition in RFC 8439 with 8 rounds instead of 20.

`vocabularies`: for two real models (in the folder MODELS) texts that DRY looks through with sequence breakers, which
llama.cpp finds in the vocabulary, and what it takes off the logit of each token then.

Writes crates/engine/tests/goldens/sampler.json and sampler-dry.json.
"""
import ctypes
import functools
import json
import os
import random
import struct
import sys

import numpy as np
from llama_cpp import llama_cpp as L

OUT = os.path.join(os.path.dirname(__file__), "..", "crates", "engine", "tests", "goldens", "sampler.json")
DRY_OUT = os.path.join(os.path.dirname(OUT), "sampler-dry.json")
DEFAULT_ORDER = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"
CONTEXT = 4096  # more than any text here has
NEUTRAL = dict(
    temp=1.0, dynatemp_range=0.0, dynatemp_exponent=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, top_n_sigma=-1.0,
    xtc_probability=0.0, xtc_threshold=0.1, repeat_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0,
    repeat_last_n=64, dry_multiplier=0.0, dry_base=1.75, dry_allowed_length=2, dry_last_n=CONTEXT, order=DEFAULT_ORDER,
    logit_bias={}, mirostat=0, mirostat_tau=5.0, mirostat_eta=0.1,
)


@functools.cache
def logits(n, seed, shift):
    """Bell-shaped: the sum of three uniform 24-bit integers around zero, divided by 2^shift."""
    x = seed
    out = np.empty(n, np.float32)
    for i in range(n):
        total = 0
        for _ in range(3):
            x = (x * 1664525 + 1013904223) % 2**32
            total += x >> 8
        out[i] = np.float32((total >> 2) - 3 * 2**21) / np.float32(2**shift)
    return out


def samplers(o, n, vocab):
    """The chain of common_sampler_init in llama.cpp's common/sampling.cpp, with `dist` or Mirostat at its end."""
    if o["logit_bias"]:
        biases = (L.llama_logit_bias * len(o["logit_bias"]))()
        for entry, (token, bias) in zip(biases, o["logit_bias"].items()):
            entry.token, entry.bias = int(token), float(bias)
        yield L.llama_sampler_init_logit_bias(n, len(biases), biases)
    if o["mirostat"]:
        yield L.llama_sampler_init_temp(o["temp"])
        if o["mirostat"] == 1:
            yield L.llama_sampler_init_mirostat(n, 1, o["mirostat_tau"], o["mirostat_eta"], 100)
        else:
            yield L.llama_sampler_init_mirostat_v2(1, o["mirostat_tau"], o["mirostat_eta"])
        return
    breakers = [text.encode() for text in o.get("breakers", [])]
    make = dict(
        penalties=lambda: L.llama_sampler_init_penalties(
            *penalty_arguments(n, o["repeat_last_n"]), o["repeat_penalty"], o["frequency_penalty"], o["presence_penalty"]
        ),
        dry=lambda: L.llama_sampler_init_dry(
            *dry_arguments(vocab), o["dry_multiplier"], o["dry_base"], o["dry_allowed_length"], o["dry_last_n"],
            (ctypes.c_char_p * max(1, len(breakers)))(*breakers), len(breakers),
        ),
        top_n_sigma=lambda: L.llama_sampler_init_top_n_sigma(o["top_n_sigma"]),
        top_k=lambda: L.llama_sampler_init_top_k(o["top_k"]),
        typ_p=lambda: L.llama_sampler_init_typical(o["typical_p"], 0),
        top_p=lambda: L.llama_sampler_init_top_p(o["top_p"], 0),
        min_p=lambda: L.llama_sampler_init_min_p(o["min_p"], 0),
        xtc=lambda: L.llama_sampler_init_xtc(o["xtc_probability"], o["xtc_threshold"], 0, 1),
        temperature=lambda: L.llama_sampler_init_temp_ext(o["temp"], o["dynatemp_range"], o["dynatemp_exponent"]),
    )
    for name in o["order"].split(";"):
        yield make[name]()
    yield L.llama_sampler_init_dist(1)  # computes the probabilities


def penalty_arguments(n, last_n):
    """Some versions of llama.cpp ask for the size of the vocabulary."""
    return (n, last_n) if len(L.llama_sampler_init_penalties.argtypes) == 5 else (last_n,)


def dry_arguments(vocab):
    """Some versions of llama.cpp ask for the size of the context."""
    return (vocab, CONTEXT) if len(L.llama_sampler_init_dry.argtypes) == 8 else (vocab,)


class Sampler(ctypes.Structure):
    _fields_ = [("iface", ctypes.c_void_p), ("ctx", ctypes.c_void_p)]


def mu_of(sampler, version, n, o):
    """Mirostat's bound, from the end of its state's plain fields, of which those before it prove the place."""
    context = ctypes.cast(sampler, ctypes.POINTER(Sampler)).contents.ctx
    words = 7 if version == 1 else 5
    raw = ctypes.string_at(context, 4 * words)
    if version == 1:  # n_vocab, seed, seed_cur, tau, eta, m, mu
        seen_n, _, _, tau, eta, m, mu = struct.unpack("<iIIffif", raw)
        assert (seen_n, m) == (n, 100)
    else:  # seed, seed_cur, tau, eta, mu
        _, _, tau, eta, mu = struct.unpack("<IIfff", raw)
    assert (tau, eta) == (np.float32(o["mirostat_tau"]), np.float32(o["mirostat_eta"]))
    return mu


def chain_of(o, n, accepted, vocab=None):
    chain = L.llama_sampler_chain_init(L.llama_sampler_chain_default_params())
    parts = list(samplers(o, n, vocab))
    for sampler in parts:
        L.llama_sampler_chain_add(chain, sampler)
    for token in accepted:
        L.llama_sampler_accept(chain, token)
    return chain, parts


def apply(chain, values):
    """The candidates that are left, as an array of (id, logit, p), and the id that was selected."""
    n = len(values)
    data = (L.llama_token_data * n)()
    for i, value in enumerate(values):
        data[i].id, data[i].logit, data[i].p = i, value, 0.0
    array = L.llama_token_data_array(data=data, size=n, selected=-1, sorted=False)
    L.llama_sampler_apply(chain, ctypes.byref(array))
    kept = [(array.data[i].id, array.data[i].logit, array.data[i].p) for i in range(array.size)]
    return kept, array.data[array.selected].id


def of_default_vocabulary():
    """DRY wants a vocabulary even if it has no breakers to look up."""
    if not hasattr(of_default_vocabulary, "model"):
        of_default_vocabulary.model = vocabulary_of(os.path.join(sys.argv[1], MODELS["smollm2"]))
    return L.llama_model_get_vocab(of_default_vocabulary.model)


def run(case):
    o = {**NEUTRAL, **case["options"]}
    values = logits(case["n"], case["seed"], case["shift"])
    vocab = of_default_vocabulary() if o["dry_multiplier"] else None
    chain, parts = chain_of(o, case["n"], case["accepted"], vocab)
    if o["mirostat"]:
        # Mirostat follows its own choices: some steps, each with the bound before it.
        steps = []
        for _ in range(6):
            mu = mu_of(parts[-1], o["mirostat"], case["n"], o)
            kept, selected = apply(chain, values)
            # llama.cpp's own draw; the order of equals aside, ids and probabilities are what it was drawn from.
            kept = sorted((id, p) for id, _, p in kept)
            steps.append(dict(
                mu=float(f"{mu:.9g}"), ids=[id for id, _ in kept], p=[float(f"{p:.9g}") for _, p in kept],
                selected=selected,
            ))
        case["steps"] = steps
        case["last_mu"] = float(f"{mu_of(parts[-1], o['mirostat'], case['n'], o):.9g}")
        L.llama_sampler_free(chain)
        return [], []
    kept, _ = apply(chain, values)
    L.llama_sampler_free(chain)
    kept = sorted((id, p) for id, logit, p in kept if logit > -np.inf)
    return [id for id, _ in kept], [float(f"{p:.9g}") for _, p in kept]


def exact(case):
    """The ids that the chain keeps in f64: each step by its definition, over everything that is left."""
    o = {**NEUTRAL, **case["options"]}
    x = logits(case["n"], case["seed"], case["shift"]).astype(np.float64)
    accepted = case["accepted"]
    for token, bias in o["logit_bias"].items():
        x[int(token)] += float(bias)
    ids = np.flatnonzero(x > -np.inf)

    def p():
        w = np.exp(x[ids] - x[ids].max())
        return w / w.sum()

    def by_likelihood():
        return np.argsort(-x[ids], kind="stable")

    for step in o["order"].split(";"):
        if step == "penalties" and o["repeat_last_n"]:
            window = accepted[-o["repeat_last_n"] :]
            for token in set(window):
                x[token] *= o["repeat_penalty"] if x[token] <= 0 else 1 / o["repeat_penalty"]
                x[token] -= window.count(token) * o["frequency_penalty"] + o["presence_penalty"]
        elif step == "dry" and o["dry_multiplier"]:
            text = accepted[-o["dry_last_n"] :] if o["dry_last_n"] else []
            longest = {}
            for end in range(len(text) - 1):
                length = 0
                while length <= end and text[end - length] == text[-1 - length]:
                    length += 1
                if length >= o["dry_allowed_length"]:
                    longest[text[end + 1]] = max(longest.get(text[end + 1], 0), length)
            for token, length in longest.items():
                x[token] -= o["dry_multiplier"] * o["dry_base"] ** (length - o["dry_allowed_length"])
        elif step == "top_n_sigma" and o["top_n_sigma"] > 0:
            ids = ids[x[ids] >= x[ids].max() - o["top_n_sigma"] * x[ids].std()]
        elif step == "top_k" and o["top_k"] > 0:
            ids = ids[by_likelihood()[: o["top_k"]]]
        elif step == "typ_p" and o["typical_p"] < 1:
            q = p()
            order = np.argsort(np.abs(-np.log(q) + (q * np.log(q)).sum()), kind="stable")
            ids = ids[order[: int(np.searchsorted(np.cumsum(q[order]), o["typical_p"], side="right")) + 1]]
        elif step == "top_p" and o["top_p"] < 1:
            order = by_likelihood()
            ids = ids[order[: int(np.searchsorted(np.cumsum(p()[order]), o["top_p"])) + 1]]
        elif step == "min_p" and o["min_p"] > 0:
            ids = ids[p() >= o["min_p"] * p().max()]
        elif step == "xtc" and o["xtc_probability"] == 1:
            top = [i for i in by_likelihood() if p()[i] >= o["xtc_threshold"]]
            ids = np.delete(ids, np.array(top[:-1], int))
        elif step == "temperature":
            temp = o["temp"]
            if o["dynatemp_range"] > 0 and len(ids) > 1:
                share = -(p() * np.log(p())).sum() / np.log(len(ids))
                low, high = max(0.0, temp - o["dynatemp_range"]), temp + o["dynatemp_range"]
                temp = low + (high - low) * share ** o["dynatemp_exponent"]
            if temp == 0:
                ids = ids[by_likelihood()[:1]]
            else:
                x = x / temp
    return sorted(int(i) for i in ids)


def chacha8(seed, n):
    """The first n 64-bit words of the stream."""

    def quarter(s, a, b, c, d):
        for i, j, k, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[i] = (s[i] + s[j]) % 2**32
            x = s[k] ^ s[i]
            s[k] = (x << by | x >> (32 - by)) % 2**32

    words = []
    counter = 0
    while len(words) < 2 * n:
        start = list(struct.unpack("<4I", b"expand 32-byte k")) + [seed % 2**32, seed >> 32] + [0] * 6
        start += [counter % 2**32, counter >> 32, 0, 0]
        s = list(start)
        for _ in range(4):
            for i in range(4):
                quarter(s, i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        words += [(a + b) % 2**32 for a, b in zip(s, start)]
        counter += 1
    return [words[2 * i] | words[2 * i + 1] << 32 for i in range(n)]


def cases():
    # shift 20: logits of about -6 to 6; 19: -12 to 12; 21: -3 to 3, a flat distribution.
    def case(name, n=2000, seed=1, shift=19, accepted=(), **options):
        return dict(name=name, n=n, seed=seed, shift=shift, accepted=list(accepted), options=options)

    default = dict(temp=0.8, top_k=40, top_p=0.95, min_p=0.05)
    yield case("default", **default)
    yield case("default, flat", shift=21, **default)
    yield case("default, peaked", shift=17, **default)
    yield case("default, large vocabulary", n=262_144, seed=3, **default)
    yield case("default, large, penalty", n=262_144, seed=4, accepted=[5, 262_143, 5], repeat_penalty=1.3, **default)
    yield case("nothing", n=300)
    yield case("temperature 0.3", n=300, temp=0.3)
    yield case("temperature 2.5", n=300, temp=2.5)
    yield case("temperature 0", temp=0.0)
    yield case("temperature 0, top-k", temp=0.0, top_k=40)
    yield case("top-k 1", top_k=1)
    yield case("top-k 300", top_k=300)
    yield case("top-k of all", n=300, top_k=300)
    yield case("top-k above all", n=300, top_k=5000)
    yield case("top-p 0.5", top_p=0.5)
    yield case("top-p 0.95, flat", n=500, shift=21, top_p=0.95)
    yield case("top-p 0", top_p=0.0)
    yield case("top-p after top-k", shift=21, top_k=20, top_p=0.5)
    yield case("top-p, large vocabulary", n=32_768, seed=5, shift=18, top_p=0.9)
    yield case("top-p and min-p, large vocabulary", n=262_144, seed=6, temp=1.5, top_p=0.9, min_p=0.1)
    yield case("min-p 0.1", min_p=0.1)
    yield case("min-p 1", min_p=1.0)
    yield case("min-p 0.001", min_p=0.001)
    yield case("min-p tighter than top-p", top_p=0.99, min_p=0.3)
    yield case("top-p tighter than min-p", top_p=0.3, min_p=0.01)
    yield case("cuts are at temperature 1", temp=3.0, top_k=100, top_p=0.8, min_p=0.02)
    best = [int(i) for i in np.argsort(-logits(2000, 1, 19))[:8]]
    worst = [int(i) for i in np.argsort(logits(2000, 1, 19))[:2]]
    yield case("penalty", n=2000, accepted=best + worst, repeat_penalty=1.5, top_k=30)
    yield case("penalty counts a token once", accepted=[best[0]] * 5, repeat_penalty=1.2, top_k=10)
    yield case("penalty of a window", accepted=best, repeat_penalty=1.5, repeat_last_n=3, top_k=30)
    yield case("penalty without a window", accepted=best, repeat_penalty=1.5, repeat_last_n=0, top_k=30)
    yield case("reward", accepted=best[3:5], repeat_penalty=0.7, top_k=30)
    yield case("penalty, greedy", accepted=best, repeat_penalty=2.0, temp=0.0)
    flat = dict(n=1500, shift=21)
    yield case("frequency", accepted=best[:4] * 3 + best[4:6], frequency_penalty=0.7, top_k=30)
    yield case("presence", accepted=best[:4] * 3 + worst, presence_penalty=1.5, top_k=30)
    yield case("all penalties in a window", accepted=best * 3, repeat_last_n=11, repeat_penalty=1.2, frequency_penalty=0.3, presence_penalty=-0.4, top_k=30)
    yield case("frequency, greedy", accepted=best[:4] * 3, frequency_penalty=1.0, temp=0.0)
    yield case("typical-p 0.5", typical_p=0.5)
    yield case("typical-p 0.2 of a flat distribution", typical_p=0.2, **flat)
    yield case("typical-p leaves out the likeliest", n=2000, shift=20, typical_p=0.3)
    yield case("typical-p after top-k", top_k=40, typical_p=0.7)
    yield case("typical-p, greedy", shift=20, typical_p=0.3, temp=0.0)
    yield case("typical-p 0", typical_p=0.0)
    yield case("top-n-sigma 1", top_n_sigma=1.0)
    yield case("top-n-sigma 2.5 of a flat distribution", top_n_sigma=2.5, **flat)
    yield case("top-n-sigma 3 at a high temperature", n=5000, seed=9, top_n_sigma=3.0, temp=3.0)
    yield case("top-n-sigma before top-k", n=500, top_n_sigma=2.0, top_k=20, temp=1.5)
    yield case("xtc 1", xtc_probability=1.0, xtc_threshold=0.05)
    yield case("xtc 1, nothing above", xtc_probability=1.0, xtc_threshold=0.5, **flat)
    yield case("xtc 1 after top-k", top_k=20, xtc_probability=1.0, xtc_threshold=0.1)
    yield case("xtc 1 with a threshold that none reaches twice", xtc_probability=1.0, xtc_threshold=0.6)
    yield case("xtc 0", xtc_probability=0.0, xtc_threshold=0.05, top_k=20)
    yield case("xtc 1, greedy", top_k=40, xtc_probability=1.0, xtc_threshold=0.05, temp=0.0)
    yield case("dynamic temperature", top_k=40, temp=1.0, dynatemp_range=0.7)
    yield case("dynamic temperature, exponent", top_k=40, temp=0.8, dynatemp_range=0.5, dynatemp_exponent=0.5)
    yield case("dynamic temperature of a flat distribution", temp=1.2, dynatemp_range=1.2, dynatemp_exponent=2.0, **flat)
    yield case("dynamic temperature from 0", top_k=40, temp=0.0, dynatemp_range=2.0)
    yield case("logit biases", logit_bias={str(best[0]): -3.0, str(best[1]): "-inf", str(worst[0]): 20.0}, top_k=30)
    yield case("logit bias, greedy", logit_bias={str(best[0]): "-inf"}, temp=0.0)
    yield case("logit biases and no cut", n=300, logit_bias={"7": -2.5, "8": 1.25})
    phrase = [best[2], best[0], best[5], best[1]]
    text = phrase + worst + phrase[1:] + worst[:1] + phrase + best[6:7] + phrase[:3]
    yield case("dry", accepted=text, dry_multiplier=0.8, top_k=30)
    yield case("dry, base and length", accepted=text, dry_multiplier=1.3, dry_base=3.0, dry_allowed_length=1, top_k=30)
    yield case("dry of a window", accepted=text, dry_multiplier=0.8, dry_last_n=9, top_k=30)
    yield case("dry of no window", accepted=text, dry_multiplier=0.8, dry_last_n=0, top_k=30)
    yield case("dry of one token", accepted=best[:1] * 30, dry_multiplier=0.1, dry_base=1.1, top_k=30)
    yield case("dry of two letters", accepted=(best[:2] * 20 + best[2:3]) * 2 + best[:2] * 3, dry_multiplier=0.1, dry_base=1.05, top_k=30)
    yield case("dry and penalties", accepted=text, dry_multiplier=0.8, repeat_penalty=1.1, **default)
    yield case("order: temperature first", order="temperature;top_p;min_p", temp=1.7, top_p=0.9, min_p=0.02)
    yield case("order: temperature first, flat", n=5000, seed=8, order="temperature;top_p", temp=1.4, top_p=0.9)
    yield case("order: min-p, top-k, top-p", order="min_p;top_k;top_p", min_p=0.01, top_k=50, top_p=0.8)
    yield case("order: penalties last", accepted=best, order="top_k;temperature;penalties", top_k=12, temp=0.7, repeat_penalty=1.4, presence_penalty=0.3)
    yield case("order: dry behind top-k", accepted=text, order="top_k;dry", top_k=12, dry_multiplier=0.8)
    yield case("order: what is not named is not done", accepted=best, order="top_k", top_k=7, temp=0.1, min_p=0.5, repeat_penalty=2.0)
    # Not sigma before typical-p without a cut between: there llama.cpp's entropy is NaN.
    yield case("order: top-k, typical, sigma", order="top_k;typ_p;top_n_sigma", top_k=200, top_n_sigma=1.5, typical_p=0.9)
    yield case("order: xtc before min-p", order="xtc;min_p;temperature", xtc_probability=1.0, xtc_threshold=0.02, min_p=0.2, temp=0.6)
    yield case("order: greedy, then penalties", accepted=best[:2], order="temperature;penalties", temp=0.0, repeat_penalty=3.0)
    yield case("everything", accepted=text, **{**default, "top_k": 100}, top_n_sigma=3.0, typical_p=0.95, xtc_probability=1.0, xtc_threshold=0.1, dynatemp_range=0.3, repeat_penalty=1.1, frequency_penalty=0.1, presence_penalty=0.1, dry_multiplier=0.5)
    for version in (1, 2):
        for tau in (2.0, 5.0):
            yield case(f"mirostat {version}, {tau}", mirostat=version, mirostat_tau=tau, mirostat_eta=0.3)
        yield case(f"mirostat {version}, temperature and biases", mirostat=version, mirostat_tau=3.0, temp=1.6, logit_bias={str(best[0]): "-inf"})
        yield case(f"mirostat {version}, nothing else", n=600, mirostat=version, top_k=3, repeat_penalty=2.0, accepted=best[:1])


MODELS = dict(smollm2="SmolLM2-135M-Instruct.Q4_1.gguf", gemma3="gemma-3-270m-q4_k_m.gguf")
TEXT = 'He said: "Now the cat sat.\nThe cat sat: *now* the cat sat\n\n- one: two\n- one: two, three. END The cat sat. THE END Now the cat'


def vocabulary_of(path):
    params = L.llama_model_default_params()
    params.vocab_only = True
    model = L.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise SystemExit(f"{path}: llama.cpp does not load it")
    return model


def tokens_of(vocab, text):
    ids = (L.llama_token * 1000)()
    n = L.llama_tokenize(vocab, text.encode(), len(text.encode()), ids, len(ids), False, False)
    return list(ids[:n])


def dry_rows(path):
    """Random texts over the tokens of TEXT, of which many are breakers, and what DRY takes off which logit."""
    model = vocabulary_of(path)
    vocab = L.llama_model_get_vocab(model)
    n = L.llama_vocab_n_tokens(vocab)
    tokens = tokens_of(vocab, TEXT)
    pick = random.Random(7)
    for breakers in (["\n", ":", '"', "*"], [], ["THE END"], ["sat.", "- one"], [" cat"], ["\n\n- ", "END"], ["é:", "now*"]):
        # llama.cpp goes through the vocabulary for each sampler: one for all texts.
        o = {**NEUTRAL, "dry_multiplier": 1.0, "dry_base": 1.5, "order": "dry", "breakers": breakers}
        chain, _ = chain_of(o, n, [], vocab)
        for _ in range(8):
            text = list(tokens)
            for _ in range(30):  # pieces of it again, in some order
                start = pick.randrange(len(tokens))
                text += tokens[start : start + pick.randrange(1, 8)]
            start = pick.randrange(len(text) - 6)
            text += text[start : start + pick.randrange(2, 6)]
            L.llama_sampler_reset(chain)
            for token in text:
                L.llama_sampler_accept(chain, token)
            kept, _ = apply(chain, np.zeros(n, np.float32))
            off = sorted((id, float(f"{-logit:.7g}")) for id, logit, _ in kept if logit != 0)
            yield dict(breakers=breakers, accepted=text, ids=[id for id, _ in off], penalties=[x for _, x in off])
        L.llama_sampler_free(chain)
    L.llama_model_free(model)


def main():
    rows = []
    for case in cases():
        values = logits(case["n"], case["seed"], case["shift"])
        case["logit_sum"] = float(values.sum(dtype=np.float64))
        case["ids"], case["p"] = run(case)
        is_drawn = case["options"].get("mirostat", 0)
        if not is_drawn and case["ids"] != exact(case):
            raise SystemExit(f"{case['name']}: llama.cpp keeps {len(case['ids'])} tokens, exact arithmetic {len(exact(case))}; choose another seed")
        print(f"{case['name']:40} keeps {len(case['ids'] or case['steps'][-1]['ids']):5} of {case['n']}")
        rows.append(case)
    random = {str(seed): [str(x) for x in chacha8(seed, 20)] for seed in (0, 42, 2**64 - 1)}
    with open(OUT, "w") as f:
        f.write('{"random": ' + json.dumps(random) + ',\n"cases": [\n')
        f.write(",\n".join(json.dumps(row) for row in rows) + "\n]}\n")
    write_dry()


def write_dry():
    with open(DRY_OUT, "w") as f:
        models = []
        for name, file in MODELS.items():
            rows = list(dry_rows(os.path.join(sys.argv[1], file)))
            print(f"{name}: {sum(len(row['ids']) for row in rows)} penalties in {len(rows)} texts")
            models.append(json.dumps(file) + ": [\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")
        f.write("{" + ",\n".join(models) + "}\n")


if __name__ == "__main__":
    main()
