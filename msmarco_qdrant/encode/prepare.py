"""Parse and tokenize chunks of a source, in several processes if needed.

Parsing, digests and tokenizing take so long per passage that one Python process cannot feed a GPU.
A chunk is sent as bytes and comes back as a few large buffers, so that the process in the middle
handles few Python objects per passage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.pid_set import KEY_BYTES, PidSet, pid_key
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.encoding import Tokenized, Tokenizer
from msmarco_qdrant.runtime.subprocesses import SubprocessPool
from msmarco_qdrant.sources.corpus import Chunk
from msmarco_qdrant.sources.rejects import duplicate_pid_reason, reject_passage
from msmarco_qdrant.sources.shard_file import TEXT_COLUMNS, text_batch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PreparedChunk:
    """A chunk, parsed and tokenized.

    Attributes:
        indexes: Indexes of the chunk's rows that are passages.
        keys: `KEY_BYTES` bytes per passage, derived from its pid.
        texts: The passages' columns, a `pyarrow.RecordBatch`.
        tokens: Their token ids.
        rejects: The other rows.
        digest: Sha256 of the chunk.
    """

    indexes: list[int]
    keys: bytes
    texts: Any
    tokens: Tokenized
    rejects: list[Reject]
    digest: bytes

    def without_repeated(self, chunk: Chunk, seen: PidSet) -> PreparedChunk:
        """Return the chunk without passages whose pid is in `seen`, and add the others to it."""
        import numpy as np

        keys = [self.keys[at : at + KEY_BYTES] for at in range(0, len(self.keys), KEY_BYTES)]
        return self.without(chunk, np.array([not seen.add_key(key) for key in keys], bool))

    def without(self, chunk: Chunk, is_repeat: NDArray[np.bool_]) -> PreparedChunk:
        """Return the chunk without some passages, whose pids came before them."""
        import numpy as np

        if not is_repeat.any():
            return self
        is_new, rows = ~is_repeat, chunk.rows()
        repeats = [rows[self.indexes[place]] for place in np.flatnonzero(is_repeat)]
        late = [
            reject_passage(row, duplicate_pid_reason(row))
            for row in repeats
            if isinstance(row, Passage)
        ]
        kept = np.flatnonzero(is_new)
        return replace(
            self,
            indexes=[self.indexes[index] for index in kept],
            keys=b"".join(self.keys[at * KEY_BYTES : (at + 1) * KEY_BYTES] for at in kept),
            texts=self.texts.take(kept),
            tokens=self.tokens.take(kept),
            rejects=[*self.rejects, *late],
        )


def prepare(chunk: Chunk, tokenizer: Tokenizer) -> PreparedChunk:
    """Parse a chunk's rows, and tokenize those that are passages."""
    rows = chunk.rows()
    indexes = [index for index, row in enumerate(rows) if isinstance(row, Passage)]
    passages = [row for row in rows if isinstance(row, Passage)]
    texts = [passage.text for passage in passages]
    columns = {
        "pid": [passage.pid for passage in passages],
        "text": texts,
        "meta": [json.dumps(passage.meta, ensure_ascii=False) for passage in passages],
        "text_digest": [text_digest(text) for text in texts],
        "meta_digest": [meta_digest(passage.meta) for passage in passages],
    }
    return PreparedChunk(
        indexes=indexes,
        keys=b"".join(map(pid_key, columns["pid"])),
        texts=text_batch({name: columns[name] for name in TEXT_COLUMNS}),
        tokens=tokenizer(texts),
        rejects=[row for row in rows if isinstance(row, Reject)],
        digest=chunk.digest(),
    )


# ---- in other processes ----------------------------------------------------------------------


@contextmanager
def open_preparers(
    tokenizer: Tokenizer, processes: int
) -> Iterator[Callable[[Chunk], Future[PreparedChunk]]]:
    """Yield a function that starts preparing a chunk; the end drops chunks not yet started.

    Args:
        tokenizer: The encoder's tokenizer; it must be portable if there are processes.
        processes: Number of processes; 0 for one thread of this process.
    """
    task = partial(prepare, tokenizer=tokenizer)
    if processes:
        with closing(SubprocessPool(task, processes)) as pool:
            yield pool.submit
        return
    thread = ThreadPoolExecutor(1, thread_name_prefix="msmarco-qdrant-prepare")
    try:
        yield partial(thread.submit, task)
    finally:
        thread.shutdown(cancel_futures=True)
