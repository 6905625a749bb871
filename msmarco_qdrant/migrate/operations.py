"""What can be changed in a collection that is being searched, each as a migration's operation.

A migration file holds one::

    from msmarco_qdrant.operations import AddPayloadIndex

    DESCRIPTION = "filters on the year by an index"
    OPERATION = AddPayloadIndex("year", "integer")

What an engine lacks by its nature (a store in memory has no graph and no index, and compares with
every vector) needs no change there: the cost says so, and nothing is done. Quantization is refused
there, as it is when a collection is made.

Checks of values that come from outside, a caller or a migration's file, with what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from msmarco_qdrant.collection.create import check_index
from msmarco_qdrant.collection.migration import Target
from msmarco_qdrant.core.records import (
    Bm25Settings,
    CollectionSpec,
    PayloadIndex,
    Quantization,
    SettingsChange,
)
from msmarco_qdrant.encoding import Bm25Encoder
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import check_field
from msmarco_qdrant.migrate.bm25 import rewrite_sparse
from msmarco_qdrant.stores.base import apply_change
from msmarco_qdrant.stores.filters import index_kind, meta_key

_UNCHANGED = "nothing changes; an index that is not complete is completed"
_BYTES_OF: dict[Quantization, float] = {"none": 0, "int8": 1, "turbo4": 0.5}


# ---- settings of the dense vectors and their index -----------------------------------------


@dataclass(frozen=True, slots=True)
class SetHnsw:
    """Another shape of the graph over the dense vectors; None for what stays.

    Raises:
        UsageError: For values that no graph can have.
    """

    m: int | None = None
    ef_construct: int | None = None

    def __post_init__(self) -> None:
        check_some(self.m, self.ef_construct, name="SetHnsw(m=..., ef_construct=...)")
        check_type(int, m=self.m, ef_construct=self.ef_construct)
        check_least("m", self.m, 2)
        check_least("ef_construct", self.ef_construct, 4)

    def cost(self, target: Target) -> str:
        """How many vectors the graph is built anew over."""
        if not target.store.capabilities.ann:
            return _without(target, "graph")
        spec = target.collection.info().spec
        new = apply_change(spec, self._change)
        if new == spec:
            return _UNCHANGED
        return (
            f"m={spec.hnsw.m} ef_construct={spec.hnsw.ef_construct} -> m={new.hnsw.m} "
            f"ef_construct={new.hnsw.ef_construct}: the graph of {_vectors(target)} is built anew; "
            f"{_meanwhile(target)}"
        )

    def apply(self, target: Target) -> None:
        """Change it, and build the graph."""
        if target.store.capabilities.ann:
            _alter(target, self._change)

    @property
    def _change(self) -> SettingsChange:
        return SettingsChange(m=self.m, ef_construct=self.ef_construct)


@dataclass(frozen=True, slots=True)
class SetStorage:
    """Where the dense vectors are kept, and in what form they are searched; None for what stays.

    Attributes:
        on_disk: See `StorageSettings`.
        quantization: See `StorageSettings`.

    Raises:
        UsageError: For a kind of quantization that there is not.
    """

    on_disk: bool | None = None
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        check_some(
            self.on_disk, self.quantization, name="SetStorage(on_disk=..., quantization=...)"
        )
        check_type(bool, on_disk=self.on_disk)
        if self.quantization not in (None, *get_args(Quantization)):
            raise UsageError(
                f"the quantization {self.quantization!r} is unknown: expected one of "
                f"{', '.join(get_args(Quantization))}"
            )

    def cost(self, target: Target) -> str:
        """What is built anew, and how much memory the vectors take before and after."""
        if self._wants_copy and not target.store.capabilities.quantization:
            return f"it will be refused: {target.store.capabilities.engine} cannot quantize vectors"
        if not target.store.capabilities.ann:
            return _without(target, "choice of where vectors are kept")
        spec = target.collection.info().spec
        new = apply_change(spec, self._change)
        if new == spec:
            return _UNCHANGED
        points = target.collection.info().points
        return (
            f"{_kept(spec)} -> {_kept(new)}: {_vectors(target)} are rewritten with their graph, "
            f"and take about {_megabytes(new, points)} of memory instead of "
            f"{_megabytes(spec, points)}; {_meanwhile(target)}"
        )

    def apply(self, target: Target) -> None:
        """Change it, and rewrite what is there.

        Raises:
            UnsupportedError: If the engine cannot quantize so.
        """
        if target.store.capabilities.ann or self._wants_copy:
            _alter(target, self._change)

    @property
    def _wants_copy(self) -> bool:
        return self.quantization not in (None, "none")

    @property
    def _change(self) -> SettingsChange:
        return SettingsChange(on_disk=self.on_disk, quantization=self.quantization)


@dataclass(frozen=True, slots=True)
class SetOptimizers:
    """When the engine builds a graph over a segment, and how large segments become.

    Attributes:
        indexing_threshold_kb: Kilobytes of vectors from which a segment gets a graph; the engine's
            default is 10,000.
        max_segment_size_kb: Kilobytes of vectors beyond which segments are not merged.

    Raises:
        UsageError: For a threshold below 1.
    """

    indexing_threshold_kb: int | None = None
    max_segment_size_kb: int | None = None

    def __post_init__(self) -> None:
        check_some(
            self.indexing_threshold_kb,
            self.max_segment_size_kb,
            name="SetOptimizers(indexing_threshold_kb=..., max_segment_size_kb=...)",
        )
        check_type(
            int,
            indexing_threshold_kb=self.indexing_threshold_kb,
            max_segment_size_kb=self.max_segment_size_kb,
        )
        check_least("indexing_threshold_kb", self.indexing_threshold_kb, 1)
        check_least("max_segment_size_kb", self.max_segment_size_kb, 1)

    def cost(self, target: Target) -> str:
        """Which vectors may be built anew."""
        if not target.store.capabilities.ann:
            return _without(target, "optimizer")
        return (
            f"segments of {_vectors(target)} that the new thresholds concern are built anew; "
            f"{_meanwhile(target)}"
        )

    def apply(self, target: Target) -> None:
        """Change them, and let the optimizers work."""
        if target.store.capabilities.ann:
            change = SettingsChange(
                indexing_threshold_kb=self.indexing_threshold_kb,
                max_segment_size_kb=self.max_segment_size_kb,
            )
            _alter(target, change)


# ---- payload indexes -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddPayloadIndex:
    """An index of a `meta` field, so that filters on it are fast; or another kind of it.

    Attributes:
        field: The field's name as a filter has it, such as "year".
        kind: What it holds; values of another kind are not in the index.

    Raises:
        UsageError: For a name that no field can have, or a kind that there is not.
    """

    field: str
    kind: PayloadIndex

    def __post_init__(self) -> None:
        check_index(self.field, self.kind)

    def cost(self, target: Target) -> str:
        """How many payloads are read."""
        if not target.store.capabilities.payload_indexes:
            return _without(target, "payload index")
        kept = _index_of(target, self.field)
        if kept == self.kind:
            return "nothing changes: it has that index"
        change = f"{kept or 'no index'} -> {self.kind}"
        return (
            f"{change}: {target.collection.info().points:,} payloads are read; filters use it at "
            f"once, and the graph has links for them when it is next built; {_meanwhile(target)}"
        )

    def apply(self, target: Target) -> None:
        """Make the index."""
        if target.store.capabilities.payload_indexes:
            changed = target.store.admin_collection(target.plan.physical)
            target.check()
            changed.create_payload_index(meta_key(self.field), self.kind)


@dataclass(frozen=True, slots=True)
class RemovePayloadIndex:
    """No index of a `meta` field any more; filters on it scan.

    Raises:
        UsageError: For a name that no field can have.
    """

    field: str

    def __post_init__(self) -> None:
        check_field(self.field)

    def cost(self, target: Target) -> str:
        """What filters on the field do afterwards."""
        if not target.store.capabilities.payload_indexes:
            return _without(target, "payload index")
        kept = _index_of(target, self.field)
        if kept is None:
            return "nothing changes: it has no index"
        points = target.collection.info().points
        return f"next to nothing; filters on '{self.field}' then read up to {points:,} payloads"

    def apply(self, target: Target) -> None:
        """Remove the index."""
        if target.store.capabilities.payload_indexes:
            changed = target.store.admin_collection(target.plan.physical)
            target.check()
            changed.drop_payload_index(meta_key(self.field))


# ---- sparse vectors ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetBm25:
    """Other BM25 settings; None for what stays. Every sparse vector is made anew from its text.

    It goes on where an interruption left it: a vector that is right already is not written. An
    ingest that has begun before goes on with the old settings, so let it end first. So does, with
    the old language, a client that was opened before: another language makes other tokens.

    Raises:
        UsageError: For settings that the formula does not allow, or an unknown language.
    """

    k: float | None = None
    b: float | None = None
    avg_len: float | None = None
    language: str | None = None

    def __post_init__(self) -> None:
        check_some(self.k, self.b, self.avg_len, self.language, name="SetBm25(k=..., ...)")
        check_type(float, k=self.k, b=self.b, avg_len=self.avg_len)
        check_type(str, language=self.language)
        Bm25Encoder(self._settings(Bm25Settings()))

    def cost(self, target: Target) -> str:
        """How many texts are read."""
        kept, points = _bm25(target), target.collection.info().points
        new = self._settings(kept)
        if new == kept:
            return (
                f"nothing changes; {points:,} texts are read to see that it is so, and an index "
                "that is not complete is completed"
            )
        change = (
            f"{_bm25_text(kept)} -> {_bm25_text(new)}: {points:,} texts are read and their sparse "
            "vectors written anew; searches go on, with BM25 scores of both settings meanwhile; "
            f"{_then_indexed(target)}end running ingests first"
        )
        if new.language == kept.language:
            return change
        return f"{change}, and open clients again afterwards: they know the old language"

    def apply(self, target: Target) -> None:
        """Rewrite the sparse vectors, then keep the settings, then look for what was missed.

        An engine writes a changed point to where new ones go, which has no graph; so the graph is
        built anew, by a run that finds every sparse vector right, too: one before it may have been
        cut short of that.
        """
        new = self._settings(_bm25(target))
        rewrite_sparse(target, Bm25Encoder(new))
        if _bm25(target) != new:
            _keep_bm25(target, new)
            rewrite_sparse(target, Bm25Encoder(new))
        _index(target)

    def _settings(self, kept: Bm25Settings) -> Bm25Settings:
        given = {"k": self.k, "b": self.b, "avg_len": self.avg_len}
        numbers = {name: float(value) for name, value in given.items() if value is not None}
        return replace(kept, **numbers, language=self.language or kept.language)


# ---- what they share -----------------------------------------------------------------------


def _alter(target: Target, change: SettingsChange) -> None:
    target.check()
    target.store.admin_collection(target.plan.physical).alter(change)
    _index(target)


def _index(target: Target) -> None:
    if target.collection.info().points:
        target.collection.optimize()


def _keep_bm25(target: Target, settings: Bm25Settings) -> None:
    """Change these alone: what is read here, the ledger too, is what whoever has the lock wrote."""
    metadata = target.store.metadata(target.plan.physical)
    target.check()
    target.store.put_metadata(target.plan.physical, replace(metadata, bm25=settings))


def _without(target: Target, what: str) -> str:
    return f"nothing: {target.store.capabilities.engine} has no {what}"


def _vectors(target: Target) -> str:
    return f"{target.collection.info().points:,} vectors"


def _meanwhile(target: Target) -> str:
    """What searches do while it is under way."""
    if target.store.capabilities.multi_process:
        return "the server does it in the background, and searches go on"
    return "searches of this process wait meanwhile"


def _then_indexed(target: Target) -> str:
    """What a rewrite of every point ends with."""
    if not target.store.capabilities.ann:
        return ""
    return f"then the graph of {_vectors(target)} is built anew: {_meanwhile(target)}; "


def _kept(spec: CollectionSpec) -> str:
    place = "on disk" if spec.storage.on_disk else "in memory"
    return f"{place}, quantization {spec.storage.quantization}"


def _megabytes(spec: CollectionSpec, points: int) -> str:
    """Memory for the vectors and their quantized copy; those on disk take none of their own."""
    each = _BYTES_OF[spec.storage.quantization] + (0 if spec.storage.on_disk else 4)
    return f"{each * spec.dimension * points / 1e6:,.0f} MB"


def _index_of(target: Target, field: str) -> PayloadIndex | None:
    return index_kind(target.collection.info().spec.payload_indexes, meta_key(field))


def _bm25(target: Target) -> Bm25Settings:
    return target.store.metadata(target.plan.physical).bm25


def _bm25_text(settings: Bm25Settings) -> str:
    return f"k={settings.k} b={settings.b} avg_len={settings.avg_len} {settings.language}"


_TYPES = {int: "an integer", float: "a number", bool: "True or False", str: "a string"}


def check_some(*values: object, name: str) -> None:
    """Refuse a change of nothing."""
    if all(value is None for value in values):
        raise UsageError(f"nothing is to be changed: say what, as in {name}")


def check_type(wanted: type, **values: object) -> None:
    """Refuse what is neither None nor of a type; an integer is a float, a truth value no number."""
    for name, value in values.items():
        fits = isinstance(value, (int, float) if wanted is float else wanted)
        if value is not None and (not fits or (isinstance(value, bool) and wanted is not bool)):
            raise UsageError(f"{name}={value!r}: expected {_TYPES[wanted]}")


def check_least(name: str, value: int | None, least: int) -> None:
    """Refuse a number that is too small."""
    if value is not None and value < least:
        raise UsageError(f"{name}={value}: expected {least} or more")
