#!/usr/bin/env python3
"""Whether files that llama.cpp's own saver wrote run here with the same result.

    cargo run -p modelembed-testkit --example tiny_models -- FOLDER
    python tools/saved_by_llama_cpp.py FOLDER BINARY [NAME ...]

Each model of the folder is loaded by llama.cpp and saved again, with every key that it knows; `BINARY score` must print
for the saved file what it prints for the first one. The saver fails for quantised models (it does not know their packed
forms) and for some architectures; those are listed, and are no failure. It leaves some keys out that change the
mathematics (UNSAVED): such a file is another model, for llama.cpp too.
"""
import pathlib
import subprocess
import sys
import tempfile

SAVE = """
import sys
import llama_cpp
quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(quiet, None)
llama_cpp.llama_backend_init()
model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), llama_cpp.llama_model_default_params())
llama_cpp.llama_model_save_to_file(model, sys.argv[2].encode())
"""
# Layers that share keys and values, and embeddings for each layer.
UNSAVED = ("gemma4", "gemma3n")


def score(binary, path, ids):
    done = subprocess.run([binary, "score", "-model", path, "-ids", ids], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else done.stderr.strip()


def main():
    folder, binary, *names = sys.argv[1:]
    folder = pathlib.Path(folder)
    ids = ",".join((folder / "prompt.txt").read_text().split()[:40])
    counts = {"same": 0, "not saved": 0, "left out": 0, "DIFFERENT": 0}
    with tempfile.TemporaryDirectory() as scratch:
        saved = pathlib.Path(scratch) / "saved.gguf"
        for path in sorted(folder.glob("*.gguf")):
            if names and path.stem not in names:
                continue
            done = subprocess.run([sys.executable, "-c", SAVE, path, saved], capture_output=True)
            if done.returncode != 0:
                verdict, why = "not saved", ""
            elif path.stem.startswith(UNSAVED):
                verdict, why = "left out", ""
            else:
                first, second = score(binary, path, ids), score(binary, saved, ids)
                verdict, why = ("same", "") if first == second else ("DIFFERENT", second.splitlines()[0])
            counts[verdict] += 1
            if verdict != "same":
                print(f"{path.stem:28} {verdict} {why}")
            saved.unlink(missing_ok=True)
    print(", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    sys.exit(1 if counts["DIFFERENT"] or not counts["same"] else 0)


if __name__ == "__main__":
    main()
