"""Fast tokenizers that give the same token ids as sentence-transformers.

sentence-transformers passes texts through transformers to `tokenizers`, which returns lists of
lists. Calling `tokenizers` directly gives the same ids in less time and works in other processes;
a tokenizer of BERT's kind can also cache the ids of each word. `build_tokenizer` compares a fast
tokenizer with the library on texts that differ between tokenizers. If any differs, it uses the
library.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.encoding.backends.base import Task
from msmarco_qdrant.encoding.pretrained import NO_LENGTH
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import ModelNotFoundError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from tokenizers import Tokenizer

# BERT splits ASCII text at white space, which it drops, and makes each punctuation mark a piece.
# Marks and spaces of other scripts stay inside a piece here; `tokenizers` splits that piece.
_PIECE = re.compile(r"[!-/:-@\[-`{-~]|[^ \t\n\r!-/:-@\[-`{-~]+")
# In real passages, 99 of 100 pieces are among the first hundred thousand different ones.
_MAX_CACHED_PIECES = 200_000
_MAX_CACHED_PIECE_CHARS = 40
_ID_BYTES = array("i").itemsize

# Case, accents, scripts, white space, unknown characters, special tokens, an empty text, and a text
# longer than any model takes.
_PROBES = (
    "How Big is LONDON?",
    "  naïve café\u2028résumé\u00a0 ",
    "東京 Привет مرحبا \U0001f9ea \ufffd",
    "[CLS] <s> [MASK] </s> [SEP]",
    "",
    "snow " * 5000,
)


class FastTokenizer:
    """The tokenizer of `tokenizers` inside a transformers one. Thread-safe; can be pickled.

    Args:
        definition: Its JSON, with truncation and without padding.
        prompt: Prefix of each text.

    Attributes:
        definition: As given.
        tokenizer: The tokenizer of `tokenizers`.
    """

    portable = True

    def __init__(self, definition: str, prompt: str) -> None:
        from tokenizers import Tokenizer

        self.definition = definition
        self._prompt = prompt
        self.tokenizer = Tokenizer.from_str(definition)

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Return token ids of each text, with prompt and special tokens."""
        import numpy as np

        prompted = [self._prompt + text for text in texts]
        encodings = self.tokenizer.encode_batch_fast(prompted)
        cut = np.array([bool(encoding.overflowing) for encoding in encodings], bool)
        return Tokenized.from_rows([encoding.ids for encoding in encodings], cut)

    def __reduce__(self) -> tuple[type[FastTokenizer], tuple[str, str]]:
        return type(self), (self.definition, self._prompt)


class WordPieceTokenizer(FastTokenizer):
    """BERT's tokenizer with a cache of words. Thread-safe; can be pickled.

    BERT first splits a text at white space and at every punctuation mark. The ids of a piece
    depend on that piece alone. So `tokenizers` encodes each piece once, and a text costs a regular
    expression and a look-up per piece: a tenth of the time. A text that contains the name of a
    special token, which may span pieces, is encoded as a whole.

    Args:
        definition: The JSON of a tokenizer of `tokenizers` for which `is_word_piece` is true.
        prompt: Prefix of each text.
    """

    def __init__(self, definition: str, prompt: str) -> None:
        super().__init__(definition, prompt)
        truncation = self.tokenizer.truncation
        untruncated = type(self.tokenizer).from_str(definition)
        untruncated.no_truncation()
        self._pieces = _PieceCache(untruncated)
        marks = untruncated.encode("").ids
        # In `[CLS] text [SEP]`, count the marks before the text's first token.
        first = untruncated.encode("a", add_special_tokens=False).ids[0]
        before = untruncated.encode("a").ids.index(first)
        self._prefix, self._suffix = _pack(marks[:before]), _pack(marks[before:])
        self._max_bytes = (
            (truncation["max_length"] - len(marks)) * _ID_BYTES if truncation else None
        )
        names = (token.content for token in self.tokenizer.get_added_tokens_decoder().values())
        self._special = re.compile("|".join(map(re.escape, names)) or "(?!)")

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Return token ids of each text, with prompt and special tokens."""
        import numpy as np

        rows = [self._row(self._prompt + text) for text in texts]
        ids = np.frombuffer(b"".join(row for row, _ in rows), np.int32)
        cut = np.array([is_cut for _, is_cut in rows], bool)
        return Tokenized.from_lengths(ids, [len(row) // _ID_BYTES for row, _ in rows], cut)

    def _row(self, text: str) -> tuple[bytes, bool]:
        """Return a text's packed ids, and True if its end was cut off."""
        if self._special.search(text):
            encoding = self.tokenizer.encode(text)
            return _pack(encoding.ids), bool(encoding.overflowing)
        pieces = b"".join(map(self._pieces.__getitem__, _PIECE.findall(text)))
        is_cut = self._max_bytes is not None and len(pieces) > self._max_bytes
        return self._prefix + pieces[: self._max_bytes] + self._suffix, is_cut


class _PieceCache(dict[str, bytes]):
    """Packed token ids of pieces of text; the first ones, which are frequent, are cached."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, piece: str) -> bytes:
        ids = _pack(self._tokenizer.encode(piece, add_special_tokens=False).ids)
        if len(self) < _MAX_CACHED_PIECES and len(piece) <= _MAX_CACHED_PIECE_CHARS:
            self[piece] = ids
        return ids


def _pack(ids: list[int]) -> bytes:
    """Return token ids as int32 bytes; a text's pieces are then joined by one copy."""
    return array("i", ids).tobytes()


def is_word_piece(tokenizer: Tokenizer) -> bool:
    """True if a tokenizer of `tokenizers` splits texts as BERT does, into independent pieces.

    It needs BERT's normalizer, which works character by character, BERT's pre-tokenizer, the
    model WordPiece, and no special token that includes white space or is matched after
    normalization.
    """
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model)
    kinds = tuple(type(part).__name__ for part in parts)
    added = tokenizer.get_added_tokens_decoder().values()
    return kinds == ("BertNormalizer", "BertPreTokenizer", "WordPiece") and not any(
        token.lstrip
        or token.rstrip
        or token.single_word
        or token.normalized
        or token.content.split() != [token.content]
        for token in added
    )


class LibraryTokenizer:
    """The library's own preprocessing, for tokenizers that no fast one matches."""

    portable = False  # it holds the model

    def __init__(self, model: SentenceTransformer, task: Task, prompt: str) -> None:
        self._model = model
        self._task = task
        self._prompt = prompt

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Return token ids of each text, with prompt and special tokens."""
        import numpy as np

        if not texts:
            return Tokenized.from_lengths(np.empty(0, np.int32), [])
        features: dict[str, Any] = self._model.preprocess(
            list(texts),
            prompt=self._prompt or None,
            task=self._task,
            processing_kwargs={"common": {"return_tensors": None}, "text": {"padding": False}},
        )
        _check_features(features)
        rows = features["input_ids"]
        # The library does not return what it cut off, so a text that just fits counts, too.
        length = self._model.max_seq_length or NO_LENGTH
        return Tokenized.from_rows(rows, np.array([len(row) >= length for row in rows], bool))


def build_tokenizer(
    model: SentenceTransformer, task: Task, prompt: str
) -> FastTokenizer | LibraryTokenizer:
    """Return the fastest tokenizer that gives the same ids as the library.

    Raises:
        ModelNotFoundError: If the model needs other inputs than token ids.
    """
    library = LibraryTokenizer(model, task, prompt)
    expected = library(_PROBES)
    for fast in _fast_candidates(model, prompt):
        if fast(_PROBES).equals(expected):
            return fast
    return library


def count_prompt_tokens(model: SentenceTransformer, prompts: Prompts) -> dict[Task, int | None]:
    """Count the tokens of each task's prompt as the library's pooling does; None without one."""
    tasks: tuple[tuple[Task, str], ...] = (("query", prompts.query), ("document", prompts.passage))
    lengths: dict[Task, int | None] = {"query": None, "document": None}
    for task, prompt in tasks:
        if prompt:
            features: dict[str, Any] = model.preprocess(["a"], prompt=prompt, task=task)
            lengths[task] = features.get("prompt_length")
    return lengths


def _fast_candidates(model: SentenceTransformer, prompt: str) -> Iterator[FastTokenizer]:
    """Yield tokenizers that may give the library's ids, the fastest first."""
    if (copy := copy_tokenizer(model)) is None:
        return
    if is_word_piece(copy) and getattr(model.tokenizer, "truncation_side", "right") == "right":
        yield WordPieceTokenizer(copy.to_str(), prompt)
    yield FastTokenizer(copy.to_str(), prompt)


def copy_tokenizer(model: SentenceTransformer | CrossEncoder) -> Tokenizer | None:
    """Copy a model's tokenizer of `tokenizers`, with truncation and without padding.

    None if the model's tokenizer is not of `tokenizers`.
    """
    from tokenizers import Tokenizer

    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    length, side = model.max_seq_length, getattr(model.tokenizer, "truncation_side", "right")
    if length is not None and length < NO_LENGTH:
        copy.enable_truncation(length, direction=side)
    return copy


def _check_features(features: dict[str, Any]) -> None:
    """Refuse inputs beyond token ids that are not their default constant."""
    if not isinstance(features.get("input_ids"), list):
        raise ModelNotFoundError(
            "the model must be a transformer that reads token ids, this one does not: use a model "
            "of the BERT, DistilBERT, RoBERTa or Electra kind"
        )
    given = {name: value for name, value in features.items() if isinstance(value, list)}
    usual = {"input_ids": None, "attention_mask": 1, "token_type_ids": 0}
    for name, rows in given.items():
        constant = usual.get(name, "none")
        if name != "input_ids" and any(value != constant for row in rows for value in row):
            raise ModelNotFoundError(
                f"the model needs '{name}' in addition to token ids, which is not supported: use "
                "a model of the BERT, DistilBERT, RoBERTa or Electra kind"
            )
