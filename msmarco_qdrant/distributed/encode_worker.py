"""The worker of a distributed encode: it writes one shard of vectors after the other."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.reports import EncodeReport
from msmarco_qdrant.distributed.machine import load_encoder, named_sources, require_first_model
from msmarco_qdrant.distributed.rejects import SpilledRejects
from msmarco_qdrant.distributed.shards import ShardPlan, drop_repeats
from msmarco_qdrant.distributed.shared_folder import require_marker
from msmarco_qdrant.distributed.splits import CountedSplit
from msmarco_qdrant.encode.feed import Layout, TokenizedShard
from msmarco_qdrant.encode.prepare import PreparedChunk, prepare
from msmarco_qdrant.encode.run import EncodeRun
from msmarco_qdrant.encoding import Encoder, Tokenized, Tokenizer
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.sources.chunk_extents import LateChunks, read_chunks
from msmarco_qdrant.sources.corpus import Reading
from msmarco_qdrant.sources.extents import Extent
from msmarco_qdrant.sources.file_path import FilePath
from msmarco_qdrant.sources.rejects import RejectCount


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """Settings of every worker of one encode; they are sent to other machines.

    Attributes:
        reading: How files are read.
        models: The model.
        make_encoder: Makes the encoder, instead of the model.
        at_once: Shards whose passages are encoded at the same time.
    """

    reading: Reading
    models: ModelChoice
    make_encoder: Callable[[], Encoder] | None
    at_once: int


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """Settings that all shards have in common.

    Attributes:
        info: The encoder's info, as it is stored.
        layout: Folder and type of the vectors.
        marker: A file in the folder, which every machine sees.
    """

    info: EncoderInfo
    layout: Layout
    marker: FilePath


def prepare_extent(
    extent: Extent, reading: Reading, lines_before: int, tokenizer: Tokenizer
) -> list[PreparedChunk]:
    """Parse and tokenize the chunks of an extent."""
    with named_sources():
        return [prepare(chunk, tokenizer) for chunk in read_chunks(extent, reading, lines_before)]


class EncodeWorker:
    """Loads the encoder once, then encodes shards, also several at once in threads.

    While some are encoded, another one can be prepared.

    Args:
        settings: The same for all workers.
    """

    def __init__(self, settings: EncodeSettings) -> None:
        self._settings = settings
        self._encoder: Encoder | None = None
        self._job: EncodeJob | None = None
        self._forward = threading.Semaphore(settings.at_once)

    def load(self) -> tuple[EncoderInfo, Tokenizer | None]:
        """Load the encoder; return its properties, and its tokenizer if it can be sent.

        Raises:
            ModelError: If it cannot be loaded.
        """
        encoder = self._encoder = load_encoder(self._settings.models, self._settings.make_encoder)
        encoder.warm_up()
        return encoder.info, encoder.tokenizer if encoder.tokenizer.portable else None

    def begin(self, job: EncodeJob) -> None:
        """Prepare to encode; load the encoder unless that is done.

        Raises:
            ModelError: If it cannot be loaded.
            ModelMismatchError: If it is another one than that of the first worker.
            OutputError: If this machine has another folder under the path.
        """
        require_marker(job.marker, platform.node())
        if self._encoder is None:
            encoder = load_encoder(self._settings.models, self._settings.make_encoder)
            require_first_model(job.info, encoder.info)
            encoder.warm_up()
            self._encoder = encoder
        self._job = job

    def run_split(
        self, plan: ShardPlan, counted: CountedSplit, *parts: Sequence[PreparedChunk]
    ) -> Iterator[list[Reject] | EncodeReport]:
        """Encode a shard; yield its rejects, then its counts.

        Args:
            plan: The shard.
            counted: The rows that it covers.
            *parts: The prepared chunks of each extent; none to prepare them here.

        Raises:
            MsmarcoQdrantError: If it failed; the same shard can be encoded again.
        """
        encoder, job = self._encoder, self._job
        if encoder is None or job is None:
            raise RuntimeError("begin was not called")
        shard = self._shard(plan, counted, parts or self._prepare(counted, encoder.tokenizer))
        rejects = SpilledRejects()
        with rejects.file:
            rejected = RejectCount(rejects.add)
            run = EncodeRun(encoder, job.info, job.layout, None, 1, rejected, None)
            with self._forward:
                run.encode([shard])
            yield from rejects.batches()
        yield run.report()

    def done(self) -> int:
        """Return 0: the rows of unfinished shards are not on disk."""
        return 0

    def _prepare(self, counted: CountedSplit, tokenizer: Tokenizer) -> list[list[PreparedChunk]]:
        return [
            prepare_extent(extent, self._settings.reading, before, tokenizer)
            for extent, before in counted.extents()
        ]

    def _shard(
        self, plan: ShardPlan, counted: CountedSplit, parts: Sequence[Sequence[PreparedChunk]]
    ) -> TokenizedShard:
        chunks = LateChunks(
            plan.split.extents, self._settings.reading, counted.lines_before, plan.chunks
        )
        found = [*chain.from_iterable(parts)]
        kept = drop_repeats(found, chunks, counted.rows, counted.repeats)
        tokens = Tokenized.joined([part.tokens for part in kept])
        return TokenizedShard(plan.split.number, plan.full, chunks, kept, tokens, 0)
