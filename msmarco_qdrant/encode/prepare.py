"""From chunks of a source to token ids and columns, in as many processes as it takes.

Parsing, digests and the tokenizer take so long a passage that one Python cannot feed a GPU; a few
can. A chunk goes out as bytes and comes back as a few large buffers, so that the process in the
middle handles hardly a Python object a passage.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from msmarco_qdrant.core.pid_set import KEY_BYTES, PidSet, pid_key
from msmarco_qdrant.core.records import Passage, Reject, meta_digest, text_digest
from msmarco_qdrant.encoding import Tokenized, Tokenizer
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.runtime.subprocesses import SubprocessPool
from msmarco_qdrant.sources.corpus import Chunk
from msmarco_qdrant.sources.rejects import late_reject, repeated_pid
from msmarco_qdrant.sources.shard_file import TEXT_COLUMNS, text_batch


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What became of a chunk.

    Attributes:
        places: Which rows of the chunk are passages, by their index there.
        keys: `KEY_BYTES` bytes a passage that stand for its pid.
        texts: The passages' columns, a `pyarrow.RecordBatch`.
        tokens: Their token ids.
        rejects: The other rows.
        digest: Sha256 of the chunk.
    """

    places: list[int]
    keys: bytes
    texts: Any
    tokens: Tokenized
    rejects: list[Reject]
    digest: bytes

    def admitted(self, chunk: Chunk, seen: PidSet) -> Prepared:
        """The same without the passages whose pid stands in `seen`; the others are added to it."""
        keys = [self.keys[at : at + KEY_BYTES] for at in range(0, len(self.keys), KEY_BYTES)]
        is_new = [seen.add_key(key) for key in keys]
        if all(is_new):
            return self
        return self._without([place for place, new in enumerate(is_new) if not new], chunk)

    def _without(self, repeated: list[int], chunk: Chunk) -> Prepared:
        import numpy as np

        rows = chunk.rows()
        repeats = [rows[self.places[place]] for place in repeated]
        late = [late_reject(row, repeated_pid(row)) for row in repeats if isinstance(row, Passage)]
        kept = np.setdiff1d(np.arange(len(self.places)), repeated)
        return replace(
            self,
            places=[self.places[place] for place in kept],
            keys=b"".join(self.keys[at * KEY_BYTES : (at + 1) * KEY_BYTES] for at in kept),
            texts=self.texts.take(kept),
            tokens=self.tokens.take(kept),
            rejects=[*self.rejects, *late],
        )


def prepare(chunk: Chunk, tokenizer: Tokenizer) -> Prepared:
    """Parse a chunk's rows, and tokenize those that are passages."""
    rows = chunk.rows()
    places = [place for place, row in enumerate(rows) if isinstance(row, Passage)]
    passages = [row for row in rows if isinstance(row, Passage)]
    texts = [passage.text for passage in passages]
    columns = {
        "pid": [passage.pid for passage in passages],
        "text": texts,
        "meta": [json.dumps(passage.meta, ensure_ascii=False) for passage in passages],
        "text_digest": [text_digest(text) for text in texts],
        "meta_digest": [meta_digest(passage.meta) for passage in passages],
    }
    return Prepared(
        places=places,
        keys=b"".join(map(pid_key, columns["pid"])),
        texts=text_batch({name: columns[name] for name in TEXT_COLUMNS}),
        tokens=tokenizer(texts),
        rejects=[row for row in rows if isinstance(row, Reject)],
        digest=chunk.digest(),
    )


def pids_of(chunk: Chunk) -> list[str]:
    """The pids of a chunk's rows that are passages, whether they get a vector or not."""
    return [row.pid for row in chunk.rows() if isinstance(row, Passage)]


# ---- where it is done -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Prepare:
    """`prepare` with its tokenizer, to be sent elsewhere."""

    tokenizer: Tokenizer

    def __call__(self, chunk: Chunk) -> Prepared:
        return prepare(chunk, self.tokenizer)


def check_portable(tokenizer: Tokenizer) -> None:
    """Refuse to send a tokenizer to other processes that cannot go there."""
    if not tokenizer.portable:
        raise UsageError("this model's tokenizer works in this process only: pass workers=0")


class Preparers:
    """Prepares chunks in processes of their own, or with none of them in one thread here.

    Args:
        tokenizer: The encoder's.
        processes: How many.

    Raises:
        UsageError: For processes with a tokenizer that cannot be sent to them.
    """

    def __init__(self, tokenizer: Tokenizer, processes: int) -> None:
        if processes:
            check_portable(tokenizer)
        prepare_with = _Prepare(tokenizer)
        self._workers = SubprocessPool(prepare_with, processes) if processes else None
        self._here = ThreadPoolExecutor(1, thread_name_prefix="msmarco-qdrant-prepare")
        self._prepare = prepare_with

    def submit(self, chunk: Chunk) -> Future[Prepared]:
        """Begin with a chunk."""
        if self._workers is not None:
            return self._workers.submit(chunk)
        return self._here.submit(self._prepare, chunk)

    def close(self) -> None:
        """End them; what has not begun is dropped."""
        if self._workers is not None:
            self._workers.close()
        self._here.shutdown(cancel_futures=True)
