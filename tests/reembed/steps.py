"""What the tests of re-embedding share: models, passages, interruptions, the final check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import ReembedProgress, ReembedReport, ReembedStage
from msmarco_qdrant.core.search_types import Nearest, PointQuery, SearchEffort
from msmarco_qdrant.reembed.api import reembed_collection, rollback_collection
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.payload import point_id
from msmarco_qdrant.testing import HashingEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray


V2 = HashingEncoder(256, salt="v2")
V3 = HashingEncoder(256, salt="v3")
SMALL = HashingEncoder(128, salt="small")
LOADED = {one.info: one for one in (V2, V3, SMALL)}
STAGES: tuple[ReembedStage, ...] = ("copy", "index", "compare", "verify", "swap", "last pass")


ENGINE_BY_STAGE = list(zip(("memory", "loopback") * 3, STAGES, strict=True))
at_each_stage = pytest.mark.parametrize(("store", "stage"), ENGINE_BY_STAGE, indirect=["store"])
"""Each stage on one engine."""


class InterruptionError(Exception):
    """What a test interrupts with."""


def load_old(encoder_info: EncoderInfo) -> HashingEncoder:
    """A costless encoder of a card."""
    return LOADED[encoder_info]


def passages(count: int = 30) -> list[Passage]:
    """Some with numbers as pids and some without; each with a word of its own."""
    return [
        Passage(f"x{n}" if n % 3 == 0 else str(n), f"word{n} thing kind{n % 5}", {"n": n})
        for n in range(count)
    ]


def at(stage: ReembedStage, action: Callable[[], object]) -> Callable[[ReembedProgress], None]:
    """A callback that does something once, when a stage begins."""
    return at_stages({stage: action})


def at_stages(
    actions: Mapping[ReembedStage, Callable[[], object]],
) -> Callable[[ReembedProgress], None]:
    """A callback that runs each action once, when its stage begins."""
    left = dict(actions)

    def on_progress(progress: ReembedProgress) -> None:
        left.pop(progress.stage, lambda: None)()

    return on_progress


def interrupt() -> None:
    """End a run in the middle."""
    raise InterruptionError


def reembed(store: Store, encoder: HashingEncoder = V3, **options: Any) -> ReembedReport:
    """With an encoder instead of a model, and the old one to compare with."""
    return reembed_collection(store, "things", encoder=encoder, load_old=load_old, **options)


def rollback(store: Store, encoder: HashingEncoder = V2, **options: Any) -> ReembedReport:
    """The way back, likewise."""
    return rollback_collection(store, "things", encoder=encoder, load_old=load_old, **options)


def payloads(store: Store, name: str) -> Mapping[object, dict[str, Any]]:
    """Everything that a collection holds of its points but vectors and marks."""
    fields = ("pid", "text", "meta", "text_digest", "meta_digest", "seq")
    return dict(store.collection(name).scan(fields))


def check_holds(store: Store, expected: Sequence[Passage], encoder: HashingEncoder) -> None:
    """Exactly these passages, each under the vectors of this model."""
    collection, encoder_info = store.collection("things"), store.metadata("things").encoder
    assert encoder.info == encoder_info
    held_now = {
        one["pid"]: (one["text"], one["meta"]) for one in payloads(store, "things").values()
    }
    assert {one.pid: (one.text, one.meta) for one in expected} == held_now
    if not expected:
        return
    vectors = encoder.encode_queries([one.text for one in expected])
    exact = SearchEffort(exact=True)
    answers = collection.query(
        [
            PointQuery(Nearest(vector, encoder_info.vector_name), 1, exact, ids=[point_id(one.pid)])
            for vector, one in zip(vectors, expected, strict=True)
        ]
    )
    assert [pytest.approx(1, abs=1e-5)] * len(expected) == [hits[0].score for hits in answers]


class Garbled(HashingEncoder):
    """A model whose queries have nothing to do with its passages."""

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of other words."""
        return super().encode_queries([f"no{number} such" for number, _ in enumerate(queries)])


class Wordless(HashingEncoder):
    """A model that knows no word of some passages."""

    def _vectors(self, texts: Any) -> NDArray[np.float32]:
        vectors = super()._vectors(texts)
        vectors[texts.lengths == 1] = np.nan
        return vectors
