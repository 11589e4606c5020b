#!/usr/bin/env python3
"""Writes token ids by llama.cpp to crates/text/tests/goldens: tokens.json, pre_tokenizers.json, vocabularies.json.

usage: token_goldens.py MODELS [VOCABULARIES]

MODELS is the folder of the two real models, VOCABULARIES one of ggml-vocab-*.gguf (from `fetch_vocabularies.sh`); without
it vocabularies.json stays as it is. Every pre-tokenizer is run on SmolLM2's vocabulary, whose own name for
one is overridden: words that are cut elsewhere merge differently.
"""
import ctypes
import json
import pathlib
import random
import sys

import peer
from peer import L

OUT = pathlib.Path(peer.ROOT) / "crates/text/tests/goldens"
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA3 = "gemma-3-270m-q4_k_m.gguf"

# One name for each set of rules (crates/text/src/split/names.rs knows their other names).
PRE = """default gpt-2 smollm llama-bpe dbrx chatglm-bpe glm4 jais-2 qwen2 qwen35 laguna minicpm5 deepseek-llm
deepseek-coder deepseek-v3 spark2_5 youtu falcon bloom viking tekken gpt-4o granite-embed-multi-97m tiny_aya chameleon
kimi-k2 superbpe bailingmoe seed-coder ufakzeka afmoe exaone-moe starcoder refact command-r mpt""".split()

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\t\t\n", "\r\n", "\r\n\r\n", " \n", "\n ", " \r\n \t x",
    "Hello", " Hello", "Hello ", "Hello world", " Hello  world ", "Hello, world!", "Hello\nworld", "hello\tworld",
    "The capital of France is Paris.", "a b  c   d    e     f", "trailing spaces    ", "    leading", "x\n\n\ny", "x \n \n y",
    "I'm you're he's we've they'll I'd can't I'M YOU'RE HE'S WE'VE THEY'LL I'D CAN'T 'tis o'clock '",
    "0 1 12 123 1234 12345 123456 1234567 12345678 3.14159 1,000,000 0x1F 1e-9 ½ ² Ⅷ ٣٤٥ ৩৪ 一二三 ４２",
    "CamelCase snake_case SCREAMING_CASE kebab-case HTTPServer iPhone XMLHttpRequest aB Ab AB ab ABc aBC",
    "!?.,;:-_()[]{}<>/\\|@#$%^&*+=~`\"'", "...!!!???", "a...b---c___d", "$100 €50 £20 ¥1000 50% #tag @user", "--- \n***\n",
    "fn main() {\n    let x = vec![1, 2, 3];\n\n\tprintln!(\"{}\", x.len());\n}\n", "def f(a, b=2):\r\n    return a**b  # power\r\n",
    "<html>\n  <body class=\"a b\">&amp;nbsp;</body>\n</html>", "https://example.com/path?q=1&r=%20#frag user@example.org",
    "{\"key\": [1, 2.5, null, true], \"k\": \"v\\n\"}", "SELECT * FROM t WHERE a >= 10 AND b <> 'x';", "C:\\Users\\x\\file.txt",
    "Ünïcödé naïve café façade ÀÉÎÕÜ straße", "cafe\u0301 e\u0301\u0302\u0303 \u0301 a\u0301 \u0301\u0302", "Ångström Å Å ﬁ ﬂ",
    "Привет, мир! Ёжик и ЩУКА", "Γειά σου Κόσμε ΑΒΓ", "שלום עולם שָׁלוֹם", "مرحبا بالعالم، كيف الحال؟ ١٢٣", "\u200fabc\u200e \u202babc\u202c",
    "こんにちは世界。カタカナ ひらがな", "你好，世界！今天天气很好。", "안녕하세요 세계 ㅋㅋㅋ", "中文English混合123测试", "㐀𠀀𪜀豈 ㄅㄆㄇ ｱｲｳ ⼀⼁",
    "สวัสดีชาวโลก ราคา ๑๒๓ บาท", "नमस्ते दुनिया १२३ क्षत्रिय", "হ্যালো বিশ্ব", "வணக்கம் உலகம்", "မင်္ဂလာပါ", "ខ្មែរ", "ລາວ",
    "😀", "😀😃 😄", "👨‍👩‍👧‍👦 👍🏽 🇫🇷🇩🇪 ❤️ ☺️ 1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "\u200b\u200c\u200d\ufeff\u00ad", "a\u00a0b\u2003c\u3000d\u2028e\u2029f\u0085g", "\u00a0\u00a0x \u3000\u3000 y\u2003",
    "\x00\x01\x02\x1f\x7f", "a\x00b\x1bc", "\x1c\x1d\x1e\x1f x", "𝕳𝖊𝖑𝖑𝖔 𝟘𝟙𝟚 ℌ ℵ ⅷ", "∀x∈ℝ: x²≥0 ⇒ ∑∫√∞ ≠ ≈", "→←↑↓ ─│┌┐ █▓▒░ ▁▂▃", "▁ ▁▁ a▁b ▁x", "ĠĊĉ Ġa", "ÿþý", "\uffff\ufffd\ue000", "\U0010ffff\U000e0001",
    "  \n  \n\n  x  \n", " " * 7 + "x", " " * 31, " " * 33 + "y", "\n" * 20, "\n" * 40 + "z", "\t" * 9 + "w", " \t \t \n \t x", "\n \n \n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ab" * 60, "=" * 80, "-" * 33, "." * 17, "?!" * 20,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", "pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 300, "9" * 100, "语" * 50, "🙂" * 30, "é" * 40, "A" * 70, "the the the the the", "Mr. O'Neill's co-op; e.g., 3-4 (approx.)",
    "a 1 b 2 c3 4d 5 6", "1 2 3  4   5", "12 34\n56", "$1,234.56", "(123)", "a1b2c3", " 1", "  1", "1  ", "x=1;y=-2", "v1.2.3-rc4",
    "'s 't 're", "''''", "\"'s\"", "'S'T'RE", "it's'it", "'\n's", "l'l 'll'LL", "don’t ‘quoted’ “double”", "'ſ 'K",
    "word.\nNext", "word.\r\n\r\nNext", "end!\n\n\n", "?\n?\n", "a/b/c\n/", "//\n/// doc\n", " .\n", " ,x", "  .x", "\n.", "\t.",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>", "x<|endoftext|>y", " <|im_end|> ", "<|im_start|", "<|im_end|><|im_end|>",
    "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n", "<eos>", "a<eos> b", "<pad><unk><mask>", "<unused0>[multimodal]", "<h1>x</h1><table><tr>", "<unk>", "</s><s>", "<0x41><0x0A>", "<reponame>a<filename>b", "<s>x</s>",
    "<sentinel:42>IMGIMGABCZ<sentinel:>IMGIMGABCDEZ", "x<image>y", "\u0f0b\u0f0d བོད", "\u1f02\u1f03", "Ǆǅǆ ǈ ᾈ ʰʲ ªº", "ꟊ Ꟶ", "\u0897 \u1c89 \u2ffc \U0001f6dc \U0002ebf0 \U00016d40",
]
# Not valid UTF-8: stray continuation, cut characters, overlong forms, surrogates, Latin-1.
BYTES = [
    b"\x80", b"\xff\xfe", b"a\xffb", b"\xc3", b"abc\xe2\x82", b"\xe2\x82\xac\xe2\x82", b"\xf0\x9f\x98", b"\xf0\x9f\x98 x", b"\xc0\x80", b"\xc1\xa1bc",
    b"\xe0\x80\x80", b"\xed\xa0\x80\xed\xb0\x80", b"caf\xe9 na\xefve", b"\x80 \x81\n\x82x", b"\xf8\x88\x80\x80\x80", b"\xef\xbf\xbd\xff", b"x\xc3\x28y", b" \xff \xff", b"\xe4\xbd\xe5\xa5\xbd",
]


def random_texts(n, seed):
    """Texts of random pieces that patterns disagree about."""
    r = random.Random(seed)
    pieces = list("aAzZé日ñ٣9057½\u0301\u0302 \t\n\r.,!'\"-_/$+=<>|~^`€😀\u00a0\u3000\u200d\u0000ｱк가") + [
        "  ", "   ", "\r\n", "\n\n", "'s", "'LL", "'re", "the", "Hello", "WORLD", "123", "1234", "ab", "ABc", "...", " (", ")", "<|", "|>", "//",
    ]
    return ["".join(r.choice(pieces) for _ in range(r.randint(2, 24))) for _ in range(n)]


def load(path, pre=None, flags=()):
    """A vocabulary; `pre` and boolean `flags` override the file's metadata."""
    params = L.llama_model_default_params()
    params.vocab_only = True
    over = (L.llama_model_kv_override * 8)()
    at = 0
    if pre is not None:
        over[at].key = b"tokenizer.ggml.pre"
        over[at].tag = L.LLAMA_KV_OVERRIDE_TYPE_STR
        over[at].value.val_str = pre.encode().ljust(128, b"\0")
        at += 1
    for key, value in flags:
        over[at].key = key.encode()
        over[at].tag = L.LLAMA_KV_OVERRIDE_TYPE_BOOL
        over[at].value.val_bool = value
        at += 1
    if at:
        params.kv_overrides = over
    model = L.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        sys.exit(f"llama.cpp cannot load {path} with pre-tokenizer {pre}")
    return L.llama_model_get_vocab(model)


def encode(vocab, text, add_special, parse_special):
    room = len(text) * 2 + 16
    ids = (L.llama_token * room)()
    n = L.llama_tokenize(vocab, text, len(text), ids, room, add_special, parse_special)
    assert n >= 0, text
    return list(ids[:n])


def piece(vocab, token, special):
    buf = ctypes.create_string_buffer(512)
    n = L.llama_token_to_piece(vocab, token, buf, 512, 0, special)
    assert n >= 0
    return buf.raw[:n]


def as_json(text):
    """Text as a string where it is one, else as {"hex": ...}."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return {"hex": text.hex()}


def facts(vocab):
    """What a vocabulary says of itself besides ids."""
    n = L.llama_vocab_n_tokens(vocab)
    return {
        "n_vocab": n,
        "bos": L.llama_vocab_bos(vocab),
        "eos": L.llama_vocab_eos(vocab),
        "add_bos": bool(L.llama_vocab_get_add_bos(vocab)),
        "add_eos": bool(L.llama_vocab_get_add_eos(vocab)),
        "eog": [i for i in range(n) if L.llama_vocab_is_eog(vocab, i)],
        "control": sum(L.llama_vocab_is_control(vocab, i) for i in range(n)),
    }


def pieces(vocab, ids):
    """Pieces with special tokens shown and hidden."""
    return [[i, as_json(piece(vocab, i, True)), as_json(piece(vocab, i, False))] for i in ids]


def write(name, value):
    path = OUT / name
    path.write_text(json.dumps(value, ensure_ascii=False, indent=None, separators=(",", ":")).replace('{"text"', '\n{"text"') + "\n")
    print(path, path.stat().st_size, "bytes")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    models = pathlib.Path(sys.argv[1])
    peer.init()
    every = [t.encode() for t in TEXTS] + BYTES
    out = {"made_with": peer.versions(), "models": []}
    for name, flags in [
        (SMOLLM2, []), (GEMMA3, []), (SMOLLM2, [("tokenizer.ggml.add_bos_token", True), ("tokenizer.ggml.add_eos_token", True)]),
        (GEMMA3, [("tokenizer.ggml.add_space_prefix", True), ("tokenizer.ggml.add_eos_token", True)]),
    ]:
        vocab = load(models / name, None, flags)
        some = range(0, L.llama_vocab_n_tokens(vocab), 997)
        cases = []
        for text in every + [t.encode() for t in random_texts(60, name)]:
            plain = encode(vocab, text, False, False)
            case = {"text": as_json(text), "ids": plain}
            # Only what differs is written.
            parsed = encode(vocab, text, True, True)
            if parsed != plain:
                case["special"] = parsed
            cases.append(case)
        out["models"].append({"model": name, "flags": dict(flags), "facts": facts(vocab), "pieces": pieces(vocab, [*range(300), *some]), "cases": cases})
    write("tokens.json", out)

    texts = every + [t.encode() for t in random_texts(60, "pre")]
    out = {"made_with": peer.versions(), "model": SMOLLM2, "texts": [as_json(t) for t in texts], "pre": []}
    for name in PRE:
        vocab = load(models / SMOLLM2, name)
        out["pre"].append({"name": name, "ids": [encode(vocab, t, False, False) for t in texts]})
    text = json.dumps(out, ensure_ascii=False, separators=(",", ":")).replace('{"name"', '\n{"name"')
    (OUT / "pre_tokenizers.json").write_text(text + "\n")

    if len(sys.argv) > 2:
        out = {"made_with": peer.versions(), "vocabularies": []}
        for path in sorted(pathlib.Path(sys.argv[2]).glob("ggml-vocab-*.gguf")):
            if any(part in path.name for part in ["bert", "nomic"]):
                continue  # WordPiece and Unigram
            vocab = load(path)
            texts = every + [t.encode() for t in random_texts(30, path.name)]
            cases = [[as_json(t), encode(vocab, t, False, False), encode(vocab, t, True, True)] for t in texts]
            cases = [case[:2] if case[1] == case[2] else case for case in cases]
            out["vocabularies"].append({"file": path.name, "facts": facts(vocab), "cases": cases})
        text = json.dumps(out, ensure_ascii=False, separators=(",", ":")).replace('{"file"', '\n{"file"')
        (OUT / "vocabularies.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
