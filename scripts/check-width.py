#!/usr/bin/env python3
"""Names each comment or document line that is wider than 120 columns; comments are written to 100.

Tables, code, a pattern that is a line of its own and lines with a link may be as wide as they are.
"""
import pathlib
import re
import subprocess
import sys

WIDEST = 120
COMMENT = {
    ".rs": re.compile(r"\s*//"),
    ".wgsl": re.compile(r"\s*//"),
    ".sh": re.compile(r"\s*#"),
    ".py": re.compile(r"\s*#"),
    ".md": re.compile(r""),
}
MARKER = re.compile(r"\s*(//[/!]?|#)?\s*")
LINK = re.compile(r"\]\(|https?://")


def wide_lines(path):
    comment = COMMENT[path.suffix]
    is_code = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not comment.match(line):
            is_code = False
            continue
        text = line[MARKER.match(line).end():]
        if text.startswith("```"):
            is_code = not is_code
        is_pattern = text.startswith("`") and text.endswith("`")
        is_exempt = is_code or is_pattern or text.startswith("|") or path.suffix == ".md" and line.startswith("    ")
        if len(line) > WIDEST and not is_exempt and not LINK.search(line):
            yield number, len(line)


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
    paths = [root / name for name in listed.stdout.split("\0") if pathlib.PurePath(name).suffix in COMMENT]
    found = [(path, *at) for path in paths if path.is_file() for at in wide_lines(path)]
    for path, number, width in found:
        print(f"{path.relative_to(root)}:{number}: {width} columns", file=sys.stderr)
    sys.exit(1 if found else 0)


main()
