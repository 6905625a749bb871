"""Refuse words outside the project's vocabulary in the package, README and docs.

`python -m tests.test_words PATH...` lists them for single files and folders.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_BRITISH = (
    r"\w*(?:quanti|tokeni|normali|optimi|initiali|recogni|seriali|randomi|organi|summari|synchroni"
    r"|materiali|generali|categori|maximi|minimi)s(?:e|ed|er|es|ing|ation)\w*"
    r"|behaviou?rs?(?<=our)|behaviours?|colou?rs?(?<=our)|colours?|neighbour\w*|catalogues?|centre[sd]?"
    r"|favour\w*|honour\w*|licence\w*|judgement\w*|analyse[sd]?|labelled|artefacts?|whilst"
)
_DIALECT = (
    r"phrases?|elsewhere|patience|patient|doors?|room|turns|meanwhile|anew|whatever|whoever|whichever"
    r"|tells?|told|telling|knows?|says?|said|shall|mends?|mended|mending|gone|stands|had|beside"
)
_WORD = re.compile(rf"(?:{_BRITISH}|{_DIALECT})\Z", re.IGNORECASE)
_SEVERAL_WORDS = re.compile(
    r"\bby now\b|\ball the same\b|\bif need be\b|\basked to wait\b|\b(?:is|are) no\b(?! longer)"
    r"|\b(?:passages|points|rows|queries|requests|texts|tokens|batches|times|bytes) a second\b"
    r"|\bleads? (?:\w+ ){0,3}to\b|\bled to\b",
    re.IGNORECASE,
)
_IN_NAMES = re.compile(
    rf"(?:{_BRITISH})|(?:^|_)(?:phrases?|elsewhere|patience|doors?|room|turns|meanwhile|anew|whatever|told"
    r"|tells?|tellable|shall|mend(?:ed)?|gone|stands|telling)(?:_|$)",
    re.IGNORECASE,
)
_FIRST_WORDS = re.compile(r"(?:What|Whether|How|Where|Who|Whose|Which|When)\b")

# Words that belong to others: names of Qdrant's and Python's, a removed environment variable.
_ALLOWED = (
    "had has have",  # stop words
    *("urban centre", "MatchPhrase", "status.phrase", "QUANTISATION", "penalise", "raw.tell"),
    "stands both inside and beside",  # words of version 0.1.0 in hashes
    "'quantisation'",  # a removed name that errors of migration files quote
)


def words_of_python(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and word for each forbidden word of a module.

    Checked are identifiers, comments and all strings: docstrings, messages, help.
    """
    tree = ast.parse(source)
    lines = source.splitlines()
    for number, text in _texts(source, tree):
        if '"MatchPhrase": ' not in lines[number - 1]:
            yield from ((number, found) for found in _found(text))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", token.string)
            allowed = any(one in lines[token.start[0] - 1] for one in _ALLOWED)
            if not allowed and _is_forbidden_name(snake):
                yield token.start[0], token.string


def words_of_prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and word for each forbidden word of a Markdown file, code included."""
    for number, line in enumerate(text.splitlines(), 1):
        yield from ((number, found) for found in _found(line))


def _texts(source: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            if begun := _FIRST_WORDS.match(first):
                yield getattr(node, "lineno", 1), f"phrase: docstring begins with {begun[0]}"
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _found(text: str) -> Iterator[str]:
    if text.startswith("phrase: docstring begins"):
        yield text.removeprefix("phrase: ")
        return
    for allowed in _ALLOWED:
        text = text.replace(allowed, "")
    yield from (word for word in re.findall(r"\w+", text) if _is_forbidden(word))
    yield from (found[0] for found in _SEVERAL_WORDS.finditer(text))


@cache
def _is_forbidden(word: str) -> bool:
    return _WORD.match(word) is not None


@cache
def _is_forbidden_name(name: str) -> bool:
    return _IN_NAMES.search(name) is not None


def _report(paths: list[Path]) -> list[str]:
    rows = []
    for path in paths:
        text = path.read_text("utf-8")
        words = words_of_python(text) if path.suffix == ".py" else words_of_prose(text)
        rows += [f"{path}:{line}: {word}" for line, word in words]
    return rows


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return sorted(
        path
        for suffix in ("*.py", "*.md", "*.js", "*.html", "*.jinja")
        for path in place.rglob(suffix)
        if "sample" not in path.parts
    )


def test_words_of_the_vocabulary() -> None:
    """No forbidden word in the package, README and docs."""
    places = [*_files(ROOT / "msmarco_qdrant"), *_files(ROOT / "docs"), ROOT / "README.md"]
    assert [] == _report(places)


def test_forbidden_words_are_found() -> None:
    """In identifiers, docstrings, comments and messages."""
    source = (
        '"""What a store holds."""\n'
        "phrase_chars = 1  # as it was told\n"
        'raise ValueError("1 is no pid")\n'
        "tokenised = RoomToTell\n"
    )
    words = [word for _, word in sorted(words_of_python(source))]
    assert [
        "docstring begins with What",
        "phrase_chars",
        "told",
        "is no",
        "RoomToTell",
        "tokenised",
    ] == words
    assert [(1, "anew")] == list(words_of_prose("It begins anew."))


if __name__ == "__main__":
    found = [row for name in sys.argv[1:] for row in _report(_files(Path(name)))]
    print(*found, f"{len(found)} forbidden words", sep="\n")
    sys.exit(bool(found))
