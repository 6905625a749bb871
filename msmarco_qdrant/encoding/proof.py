"""Proofs that a compact forward pass gives a model's vectors; cached, for the next start.

A first load compares `compact` with the library: token ids of texts on which tokenizers differ,
and vectors of texts of random tokens. If all are equal, the result is a file in the user's cache,
named by a digest of the model's files, of the versions that were compared, of the code of
`encoding`, and of the kind of machine. It starts with its own checksum. The next start of a
process reads that file instead of importing the library, which takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmarco_qdrant import __version__
from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.backends.base import Task
from msmarco_qdrant.encoding.backends.cache import model_cache, prune
from msmarco_qdrant.encoding.compact import CompactModel, read_compact
from msmarco_qdrant.encoding.describe import ModelFacts
from msmarco_qdrant.encoding.file_digests import code_sha256, file_sha256
from msmarco_qdrant.encoding.fingerprint import list_modules, list_weights
from msmarco_qdrant.encoding.probes import random_texts
from msmarco_qdrant.encoding.tokenizers import FastTokenizer, WordPieceTokenizer
from msmarco_qdrant.errors import OutputError
from msmarco_qdrant.runtime.atomic_file import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)

# Of the file's form.
_VERSION = 2
_KEPT_FILES = 64
_COMPARED = ("sentence-transformers", "transformers", "tokenizers", "torch", "numpy")
_SETTINGS = (".json", ".txt", ".model", ".codes", ".bpe")
# Rounding of float32, in sums of another order, stays far below it.
_MIN_COSINE = 0.99999
_KINDS = {"fast": FastTokenizer, "word_piece": WordPieceTokenizer}


@dataclass(frozen=True, slots=True)
class Proof:
    """The result of a comparison: what the library would return when it loads this model.

    Attributes:
        facts: The model's properties.
        prompts: Prompts of queries and passages that were compared.
        tokenizers: By task, the kind of its tokenizer.
        definition: The tokenizer's JSON.
        prompt_lengths: Tokens of the prompt of each task.
    """

    facts: ModelFacts
    prompts: Prompts
    tokenizers: dict[Task, str]
    definition: str
    prompt_lengths: dict[Task, int | None]

    def tokenizer(self, task: Task) -> FastTokenizer:
        """Build the tokenizer of a task."""
        prompt = self.prompts.query if task == "query" else self.prompts.passage
        return _KINDS[self.tokenizers[task]](self.definition, prompt)


def make_proof(
    model: SentenceTransformer,
    directory: Path,
    facts: ModelFacts,
    prompts: Prompts,
    tokenizers: dict[Task, Any],
    prompt_lengths: dict[Task, int | None],
) -> tuple[Proof, CompactModel] | None:
    """Compare the compact forward passes with a model that the library has loaded, in float32.

    Returns:
        The proof and the compact model; None if the model has another shape, or a tokenizer that
        only the library has, or if any vector differs.
    """
    kinds = {task: _kind(tokenizer) for task, tokenizer in tokenizers.items()}
    if None in kinds.values():
        return None
    try:
        compact = read_compact(directory)
        if compact is None or not _agrees(compact, model):
            return None
    except Exception as exc:  # noqa: BLE001  # of a shape that is not computed, or of memory
        _log.info("%s has no compact form: %s", directory, first_line(exc))
        return None
    definition = tokenizers["query"].definition
    found = {task: str(kind) for task, kind in kinds.items()}
    return Proof(facts, prompts, found, definition, dict(prompt_lengths)), compact


def _kind(tokenizer: Any) -> str | None:
    return next((name for name, kind in _KINDS.items() if type(tokenizer) is kind), None)


def _agrees(compact: CompactModel, model: SentenceTransformer) -> bool:
    """True if both forward passes give the library's vectors of texts of random tokens."""
    import numpy as np
    import torch

    from msmarco_qdrant.encoding.backends.fused import FusedForward
    from msmarco_qdrant.encoding.backends.numpy_forward import NumpyForward

    texts = random_texts(compact, model.max_seq_length)
    ids, mask = texts.padded(int(model.tokenizer.pad_token_id or 0))
    features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    with torch.inference_mode():
        expected = model({name: values.to(model.device) for name, values in features.items()})[
            "sentence_embedding"
        ]
    one = NumpyForward(compact)
    rows = [one(texts.ids[start:stop]) for start, stop in pairwise(texts.offsets.tolist())]
    found = (FusedForward(compact)(texts), np.stack(rows))
    return all(_same(expected.cpu().numpy(), vectors) for vectors in found)


def _same(expected: NDArray[np.float32], found: NDArray[np.float32]) -> bool:
    """True if directions and lengths are those of float32's rounding."""
    import numpy as np

    if expected.shape != found.shape or not np.isfinite(found).all():
        return False
    left, right = expected.astype(np.float64), found.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1)
    near = (left * right).sum(axis=1) >= _MIN_COSINE * lengths[0] * lengths[1]
    return bool(near.all() and np.allclose(lengths[0], lengths[1], rtol=1e-4))


# ---- the file --------------------------------------------------------------------------------


def read_proof(path: Path) -> Proof | None:
    """Return the proof in a file; None without a whole one."""
    try:
        checksum, _, content = path.read_bytes().partition(b"\n")
        if checksum != _checksum(content):
            return None
        found = json.loads(content)
        return Proof(
            facts=ModelFacts(**found["facts"]),
            prompts=Prompts(**found["prompts"]),
            tokenizers=found["tokenizers"],
            definition=found["definition"],
            prompt_lengths=found["prompt_lengths"],
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def save_proof(path: Path, proof: Proof) -> None:
    """Write a proof; if that fails, the next start compares again."""
    content = json.dumps(asdict(proof)).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(_checksum(content) + b"\n" + content)
        prune(path.parent, "*.json", _KEPT_FILES)
    except (OSError, OutputError) as exc:
        _log.info("cannot write %s, so the next start imports the library again: %s", path, exc)


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def locate_proof(directory: Path, prompts: Prompts | None = None) -> Path | None:
    """Return the path of the proof of a directory's model in its present state.

    Programs with different prompts have a proof each.

    Args:
        directory: The model's files.
        prompts: Prompts of the caller or the catalog; None for the model's own.

    Returns:
        None if the model's files or JSON are damaged, which loading reports; or if a library that
        is compared is not installed.
    """
    try:
        parts = {
            "version": [_VERSION, __version__],
            "prompts": prompts and asdict(prompts),
            "compared": _describe_code(),
            "files": [
                (os.path.relpath(path, directory), file_sha256(path)) for path in _files(directory)
            ],
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError):
        return None
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return model_cache("proofs") / f"{digest[:32]}.json"


@cache
def _describe_code() -> dict[str, str]:
    """Return the system, the versions of the libraries, and the digest of the code.

    A home may be shared by machines of several kinds.
    """
    return {
        "system": f"{sys.platform} {platform.machine()}",
        **{name: version(name) for name in _COMPARED},
        "code": code_sha256(),
    }


def _files(directory: Path) -> list[Path]:
    """Return the files that decide a model's vectors."""
    folders = {directory, *(path for _, path in list_modules(directory))}
    settings = [
        path
        for folder in sorted(folders)
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix in _SETTINGS
    ]
    return [*settings, *(path for folder in sorted(folders) for path in list_weights(folder))]
