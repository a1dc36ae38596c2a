"""Everyday photo words, the starter's vocabulary; vocabulary/make.py makes the file."""

from pathlib import Path

FILE = Path(__file__).with_name("everyday.txt")


def read_words(file: Path = FILE) -> list[str]:
    """The words of the file, without its header (all before the first empty line) and its headings (# …)."""
    _, _, groups = file.read_text(encoding="utf-8").partition("\n\n")
    return [line for line in groups.splitlines() if line and not line.startswith("# ")]
