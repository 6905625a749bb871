"""A model's own tokenizer, without what stands around it.

sentence-transformers hands texts to transformers, which hands them to `tokenizers` and makes lists
of lists of what comes back. The last step alone, called directly, gives the same ids in less time
and can be sent to other processes; of BERT's kind it can also be remembered word by word.
`tokenizer_of` proves the "same" on texts that tell tokenizers apart, and takes the library's way
where it is not so.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.records import Prompts
from msmarco_qdrant.encoding.backends.base import Task
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import ModelNotFoundError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

# What BERT cuts at, of ASCII: white space is left out, each punctuation mark stands alone. Other
# scripts' marks and spaces stay inside a piece, and are cut when the piece is asked.
_PIECE = re.compile(r"[!-/:-@\[-`{-~]|[^ \t\n\r!-/:-@\[-`{-~]+")
# Real passages come 99 times in 100 with pieces among the first hundred thousand or so.
_PIECES_KEPT = 200_000
_LONGEST_PIECE_KEPT = 40
_ID_BYTES = array("i").itemsize

# Case, accents, scripts, white space, unknown characters, special tokens, nothing at all, and one
# beyond the length of any model.
_PROBES = (
    "How Big is LONDON?",
    "  naïve café\u2028résumé\u00a0 ",
    "東京 Привет مرحبا \U0001f9ea \ufffd",
    "[CLS] <s> [MASK] </s> [SEP]",
    "",
    "snow " * 5000,
)


class FastTokenizer:
    """The tokenizer of `tokenizers` inside a transformers one. Thread-safe, and can be pickled.

    Args:
        definition: Its JSON, truncation included and padding left out.
        prompt: What is put in front of each text.
    """

    def __init__(self, definition: str, prompt: str) -> None:
        from tokenizers import Tokenizer

        self._definition = definition
        self._prompt = prompt
        self.tokenizer = Tokenizer.from_str(definition)

    @property
    def portable(self) -> bool:
        """It can be sent to other processes."""
        return True

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Token ids of each text, prompt and special tokens included."""
        prompted = [self._prompt + text for text in texts]
        return _joined([found.ids for found in self.tokenizer.encode_batch_fast(prompted)])

    def row(self, text: str) -> list[int]:
        """Token ids of one text that has its prompt already."""
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def __reduce__(self) -> tuple[type[FastTokenizer], tuple[str, str]]:
        return FastTokenizer, (self._definition, self._prompt)


class WordPieceTokenizer:
    """BERT's tokenizer, remembering what it made of each word. Thread-safe, and can be pickled.

    BERT cuts a text at white space and at every punctuation mark before anything else, and what it
    makes of a piece in between depends on that piece alone. So a piece is asked of `tokenizers`
    once, and a text costs a regular expression and a look-up a piece: a tenth of the time. A text
    that holds a special token's name, which may reach across pieces, is asked as a whole.

    Args:
        definition: The JSON of a tokenizer of `tokenizers` for which `is_word_piece` holds.
        prompt: What is put in front of each text.
    """

    def __init__(self, definition: str, prompt: str) -> None:
        self._whole = FastTokenizer(definition, prompt)
        self._definition = definition
        self._prompt = prompt
        tokenizer = self._whole.tokenizer
        truncation = tokenizer.truncation
        tokenizer_alone = _copied(tokenizer)
        tokenizer_alone.no_truncation()
        self._pieces = _Pieces(tokenizer_alone)
        marks = tokenizer_alone.encode("").ids
        # Of `[CLS] text [SEP]` the text stands behind as many marks as precede its first token.
        first = tokenizer_alone.encode("a", add_special_tokens=False).ids[0]
        behind = tokenizer_alone.encode("a").ids.index(first)
        self._before, self._behind = _packed(marks[:behind]), _packed(marks[behind:])
        room = truncation["max_length"] - len(marks) if truncation else None
        self._room = None if room is None else room * _ID_BYTES
        names = (token.content for token in tokenizer.get_added_tokens_decoder().values())
        self._special = re.compile("|".join(map(re.escape, names)) or "(?!)")

    @property
    def portable(self) -> bool:
        """It can be sent to other processes."""
        return True

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Token ids of each text, prompt and special tokens included."""
        import numpy as np

        rows = [self._row(self._prompt + text) for text in texts]
        ids = np.frombuffer(b"".join(rows), np.int32)
        return Tokenized.from_lengths(ids, [len(row) // _ID_BYTES for row in rows])

    def _row(self, text: str) -> bytes:
        if self._special.search(text):
            return _packed(self._whole.row(text))
        pieces = b"".join(map(self._pieces.__getitem__, _PIECE.findall(text)))
        return self._before + pieces[: self._room] + self._behind

    def __reduce__(self) -> tuple[type[WordPieceTokenizer], tuple[str, str]]:
        return WordPieceTokenizer, (self._definition, self._prompt)


class _Pieces(dict[str, bytes]):
    """The packed token ids of pieces of text; the first are kept, which are the frequent ones."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, piece: str) -> bytes:
        ids = _packed(self._tokenizer.encode(piece, add_special_tokens=False).ids)
        if len(self) < _PIECES_KEPT and len(piece) <= _LONGEST_PIECE_KEPT:
            self[piece] = ids
        return ids


def _packed(ids: list[int]) -> bytes:
    """Token ids as int32: joining a text's pieces is then one copy."""
    return array("i", ids).tobytes()


def is_word_piece(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer of `tokenizers` cuts texts as BERT does, so that pieces are independent.

    That is BERT's normalizer, which works a character at a time, BERT's cut, WordPiece for what is
    in between, and no special token that takes white space with it, or is looked for only in what
    the normalizer has made.
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
    """The library's own preprocessing, for a tokenizer that is written in Python."""

    def __init__(self, model: SentenceTransformer, task: Task, prompt: str) -> None:
        self._model = model
        self._task = task
        self._prompt = prompt

    @property
    def portable(self) -> bool:
        """It holds the model, so it stays in this process."""
        return False

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Token ids of each text, prompt and special tokens included."""
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
        return _joined(features["input_ids"])


def tokenizer_of(
    model: SentenceTransformer, task: Task, prompt: str
) -> WordPieceTokenizer | FastTokenizer | LibraryTokenizer:
    """What tokenizes texts for a model as the library does, and is fastest.

    Raises:
        ModelNotFoundError: If the model wants more of a text than its token ids.
    """
    library = LibraryTokenizer(model, task, prompt)
    expected = library(_PROBES)
    for fast in _fast(model, prompt):
        if _equal(fast(_PROBES), expected):
            return fast
    return library


def prompt_lengths(model: SentenceTransformer, prompts: Prompts) -> dict[Task, int | None]:
    """Tokens of each task's prompt as the library counts them for its pooling, None without one."""
    return {
        "query": _prompt_length(model, "query", prompts.query),
        "document": _prompt_length(model, "document", prompts.passage),
    }


def _prompt_length(model: SentenceTransformer, task: Task, prompt: str) -> int | None:
    if not prompt:
        return None
    features: dict[str, Any] = model.preprocess(["a"], prompt=prompt, task=task)
    return features.get("prompt_length")


def _fast(model: SentenceTransformer, prompt: str) -> Iterator[WordPieceTokenizer | FastTokenizer]:
    """Ways around the library that may do for a model's tokenizer, the fastest first."""
    from tokenizers import Tokenizer

    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return
    copy = _copied(backend)
    copy.no_padding()
    copy.no_truncation()
    if model.max_seq_length is not None:
        copy.enable_truncation(
            model.max_seq_length, direction=getattr(model.tokenizer, "truncation_side", "right")
        )
    if is_word_piece(copy) and getattr(model.tokenizer, "truncation_side", "right") == "right":
        yield WordPieceTokenizer(copy.to_str(), prompt)
    yield FastTokenizer(copy.to_str(), prompt)


def _copied(tokenizer: Tokenizer) -> Tokenizer:
    return type(tokenizer).from_str(tokenizer.to_str())


def _joined(rows: list[list[int]]) -> Tokenized:
    import numpy as np

    lengths = [len(row) for row in rows]
    ids = np.fromiter(chain.from_iterable(rows), np.int32, sum(lengths))
    return Tokenized.from_lengths(ids, lengths)


def _equal(one: Tokenized, other: Tokenized) -> bool:
    import numpy as np

    return np.array_equal(one.offsets, other.offsets) and np.array_equal(one.ids, other.ids)


def _check_features(features: dict[str, Any]) -> None:
    """All else that the library makes of a text must be what it is without being told."""
    if not isinstance(features.get("input_ids"), list):
        raise ModelNotFoundError(
            "the model makes no list of token ids of each text, so it is no transformer: that is "
            "not supported; take a model of the BERT, DistilBERT, RoBERTa or Electra kind"
        )
    given = {name: value for name, value in features.items() if isinstance(value, list)}
    usual = {"input_ids": None, "attention_mask": 1, "token_type_ids": 0}
    for name, rows in given.items():
        constant = usual.get(name, "none")
        if name != "input_ids" and any(value != constant for row in rows for value in row):
            raise ModelNotFoundError(
                f"the model wants '{name}' of each text beside its token ids: that is not "
                "supported; take a model of the BERT, DistilBERT, RoBERTa or Electra kind"
            )
