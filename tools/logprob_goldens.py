#!/usr/bin/env python3
"""Log-probabilities and greedy continuations of the real models from exact arithmetic, for crates/engine/tests/it/score.rs.

    python tools/logprob_goldens.py MODEL_DIR [--only smollm2|gemma3] [--threads 2]

For each model: llama.cpp runs an F32 copy (made in a temporary folder, up to 1.1 GB) with an F32 KV cache over
tools/texts/score.txt and continues a few prompts greedily. Then llama.cpp's default run over the original file is
compared with that, batched and token by token, as the yardstick; tools/reference.py (numpy, f64, some minutes and
5 GB) confirms that the exact run is exact. Writes crates/engine/tests/goldens/score-NAME.json.
"""
import argparse
import os
import tempfile

import numpy as np

import peer
import reference

MODELS = {
    "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3": "gemma-3-270m-q4_k_m.gguf",
}
PROMPTS = {
    "smollm2": [
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nName three primes and explain why each one is prime.<|im_end|>\n<|im_start|>assistant\n",
        "Once upon a time, in a village between two rivers,",
        "def fibonacci(n):\n",
    ],
    "gemma3": [
        "The capital of France is",
        "Once upon a time, in a village between two rivers,",
        "def fibonacci(n):\n",
        "Die drei größten Städte Deutschlands sind",
    ],
}
GREEDY_TOKENS = 64


def judge(rows, ids):
    """Per position: log-probability of its token, arg-max id and lead of the arg-max, from what stands before it."""
    logprob, top1, lead = [None], [None], [None]
    for row, following in zip(rows, ids[1:]):
        best = int(row.argmax())
        m = row[best]
        logprob.append(float(row[following] - m - np.log(np.exp(row - m).sum())))
        top1.append(best)
        row[best] = -np.inf
        lead.append(float(m - row.max()))
    return logprob, top1, lead


def score(run, ids, batch):
    """`judge` over a llama.cpp run that is fed `batch` tokens at a time."""
    run.clear()
    parts = (ids[at : at + batch] for at in range(0, len(ids) - 1, batch))
    return judge((row for part in parts for row in run.feed(part).astype(np.float64)), ids)


def distance(a, b):
    """Mean and largest |difference| of log-probability, and the share of equal arg-max, over scored positions."""
    d = np.abs(np.array(a[0][1:]) - np.array(b[0][1:]))
    same = np.mean(np.array(a[1][1:]) == np.array(b[1][1:]))
    return {"mean_abs_logprob": round(float(d.mean()), 6), "max_abs_logprob": round(float(d.max()), 6), "top1_equal": round(float(same), 6)}


def greedy(run, prompt):
    """Greedy continuation: ids, text, and by how much each arg-max led (a near-tie may fall either way elsewhere)."""
    run.clear()
    ids = run.tokenize(prompt)
    out, lead = [], []
    row = run.feed(ids)[-1]
    for _ in range(GREEDY_TOKENS):
        best = int(row.argmax())
        top = np.partition(row, -2)[-2:]
        out.append(best)
        lead.append(round(float(top[1] - top[0]), 4))
        if peer.L.llama_vocab_is_eog(run.vocab, best):
            break
        row = run.feed([best])[-1]
    return {"prompt": prompt, "prompt_ids": ids, "ids": out, "text": run.text(out), "lead": lead}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", help="folder that holds the models")
    p.add_argument("--only", choices=MODELS)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", default=os.path.join(peer.ROOT, "crates/engine/tests/goldens"))
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    text = open(os.path.join(peer.ROOT, "tools/texts/score.txt"), encoding="utf-8").read()
    peer.init()
    for name, file in MODELS.items():
        if a.only and name != a.only:
            continue
        path = os.path.join(a.models, file)
        with tempfile.TemporaryDirectory() as tmp:
            f32 = os.path.join(tmp, "f32.gguf")
            peer.dequantise(path, f32, a.threads)
            run = peer.Runner(f32, exact=True, threads=a.threads)
            ids = run.tokenize(text)
            exact = score(run, ids, 64)
            one_by_one = score(run, ids, 1)
            prompts = [greedy(run, q) for q in PROMPTS[name]]
            run.close()
            truth = judge(reference.Model(f32).logits(ids), ids)
        run = peer.Runner(path, exact=False, threads=a.threads)
        batched = distance(score(run, ids, 128), exact)
        single = distance(score(run, ids, 1), exact)
        run.close()
        proof = {"token_by_token": distance(one_by_one, exact), "reference": distance(truth, exact)}
        print(name, len(ids), "tokens; llama.cpp batched", batched, "token by token", single, "exact against", proof)
        rounded = lambda v: [None if x is None else round(x, 5) for x in v]
        peer.write_json(
            os.path.join(a.out, f"score-{name}.json"),
            {
                "made_by": "tools/logprob_goldens.py",
                "versions": peer.versions(),
                "model": file,
                "model_sha256": peer.sha256(path),
                "text": "tools/texts/score.txt",
                "ids": ids,
                "logprob": rounded(exact[0]),
                "top1": exact[1],
                "lead": rounded(exact[2]),
                "exact_run_against": proof,
                "llama_cpp": {"batched": batched, "token_by_token": single},
                "greedy": prompts,
            },
        )


main()
