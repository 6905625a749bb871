"""Operations for migration files; they work on a collection that is in use.

A migration file holds one::

    from msmarco_qdrant.operations import AddPayloadIndex

    DESCRIPTION = "index the year for filters"
    OPERATION = AddPayloadIndex("year", "integer")

If an engine lacks a feature (a store in memory has no graph and no index), its operation does
nothing there, and its cost reports that. Only quantization is refused, as on creation.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, get_args

from msmarco_qdrant.collection.create import check_index
from msmarco_qdrant.collection.migration import Target
from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    CollectionInfo,
    CollectionSpec,
    PayloadIndex,
    Quantization,
    SettingsChange,
)
from msmarco_qdrant.core.field_path import check_field, payload_keys
from msmarco_qdrant.encoding import Bm25Encoder
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.migrate.bm25 import rewrite_sparse
from msmarco_qdrant.stores.convert import apply_change
from msmarco_qdrant.stores.filters import index_kind

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_UNCHANGED = "nothing changes; an incomplete index is completed"
_BYTES_PER_DIMENSION: dict[Quantization, float] = {"none": 0, "int8": 1, "turbo4": 0.5}


# ---- settings of the dense vectors and their index -----------------------------------------


@dataclass(frozen=True, slots=True)
class _SettingsOperation:
    """A change of `SettingsChange` fields that have the same names here."""

    _feature: ClassVar[str]

    def cost(self, target: Target) -> str:
        """Report the change and the number of vectors that are rebuilt."""
        if not target.store.capabilities.ann:
            return _missing(target, self._feature)
        change = self._describe(target.collection.info())
        return f"{change}; {_effect_on_searches(target)}" if change else _UNCHANGED

    def apply(self, target: Target) -> None:
        """Change the settings and rebuild the index."""
        if target.store.capabilities.ann:
            self._alter(target)

    def _describe(self, info: CollectionInfo) -> str:
        """Describe the change, "" for none."""
        raise NotImplementedError

    @property
    def _change(self) -> SettingsChange:
        return SettingsChange(**asdict(self))

    def _alter(self, target: Target) -> None:
        target.check()
        target.store.admin_collection(target.plan.physical).alter(self._change)
        _index(target)


@dataclass(frozen=True, slots=True)
class SetHnsw(_SettingsOperation):
    """Change the HNSW graph over the dense vectors; None leaves a value unchanged.

    Raises:
        UsageError: If a value is too small or of another type.
    """

    m: int | None = None
    ef_construct: int | None = None
    _feature = "graph"

    def __post_init__(self) -> None:
        _require_change(self, "SetHnsw(m=..., ef_construct=...)")
        _check_numbers(int, 2, m=self.m)
        _check_numbers(int, 4, ef_construct=self.ef_construct)

    def _describe(self, info: CollectionInfo) -> str:
        old, new = info.spec.hnsw, apply_change(info.spec, self._change).hnsw
        if new == old:
            return ""
        return (
            f"m={old.m} ef_construct={old.ef_construct} -> m={new.m} ef_construct="
            f"{new.ef_construct}: the graph of {info.points:,} vectors is rebuilt"
        )


@dataclass(frozen=True, slots=True)
class SetStorage(_SettingsOperation):
    """Change the storage of the dense vectors; None leaves a value unchanged.

    Attributes:
        on_disk: See `StorageSettings`.
        quantization: See `StorageSettings`.

    Raises:
        UsageError: If the kind of quantization is unknown.
    """

    on_disk: bool | None = None
    quantization: Quantization | None = None
    _feature = "storage setting for vectors"

    def __post_init__(self) -> None:
        _require_change(self, "SetStorage(on_disk=..., quantization=...)")
        if not isinstance(self.on_disk, bool | None):
            raise UsageError(f"on_disk must be True or False, got {self.on_disk!r}")
        if self.quantization not in (None, *get_args(Quantization)):
            raise UsageError(
                f"quantization must be one of {', '.join(get_args(Quantization))}, got "
                f"{self.quantization!r}"
            )

    def cost(self, target: Target) -> str:
        """Report the vectors that are rewritten and their memory before and after."""
        if self._wants_quantization and not target.store.capabilities.quantization:
            return f"it will be refused: {target.store.capabilities.engine} cannot quantize vectors"
        return _SettingsOperation.cost(self, target)

    def apply(self, target: Target) -> None:
        """Change the settings and rewrite the vectors.

        Raises:
            UnsupportedError: If the engine does not support this quantization.
        """
        if target.store.capabilities.ann or self._wants_quantization:
            self._alter(target)

    @property
    def _wants_quantization(self) -> bool:
        return self.quantization not in (None, "none")

    def _describe(self, info: CollectionInfo) -> str:
        old, new, points = info.spec, apply_change(info.spec, self._change), info.points
        if new == old:
            return ""
        return (
            f"{_storage_text(old)} -> {_storage_text(new)}: {points:,} vectors are rewritten with "
            f"their graph and use about {_megabytes(new, points)} of memory instead of "
            f"{_megabytes(old, points)}"
        )


@dataclass(frozen=True, slots=True)
class SetOptimizers(_SettingsOperation):
    """Change the engine's thresholds for segments; None leaves a value unchanged.

    Attributes:
        indexing_threshold_kb: Kilobytes of vectors from which a segment gets a graph; the engine's
            default is 10,000.
        max_segment_size_kb: Kilobytes of vectors above which segments are not merged.

    Raises:
        UsageError: If a threshold is below 1.
    """

    indexing_threshold_kb: int | None = None
    max_segment_size_kb: int | None = None
    _feature = "optimizer"

    def __post_init__(self) -> None:
        _require_change(self, "SetOptimizers(indexing_threshold_kb=..., max_segment_size_kb=...)")
        _check_numbers(int, 1, **asdict(self))

    def _describe(self, info: CollectionInfo) -> str:
        return f"segments of {info.points:,} vectors affected by the new thresholds are rebuilt"


@dataclass(frozen=True, slots=True)
class AddPayloadIndex:
    """Add an index of a `meta` field for fast filters, or change its kind.

    Attributes:
        field: The field's name as in a filter, such as "year".
        kind: The type of its values; values of another type are not indexed.

    Raises:
        UsageError: If the name or the kind is not valid.
    """

    field: str
    kind: PayloadIndex

    def __post_init__(self) -> None:
        check_index(self.field, self.kind)

    def cost(self, target: Target) -> str:
        """Report the number of payloads that are read."""
        if not target.store.capabilities.payload_indexes:
            return _missing(target, "payload index")
        kinds = _index_kinds(target, self.field)
        if kinds == {self.kind}:
            return "nothing changes: it has that index"
        current = " and ".join(sorted(kind or "no index" for kind in kinds))
        return (
            f"{current} -> {self.kind}: {target.collection.info().points:,} payloads "
            "are read; filters use it at once, and the graph gets links for them when it is next "
            f"built; {_effect_on_searches(target)}"
        )

    def apply(self, target: Target) -> None:
        """Create the index."""
        if target.store.capabilities.payload_indexes:
            admin = target.store.admin_collection(target.plan.physical)
            target.check()
            for key in payload_keys(self.field):
                admin.create_payload_index(key, self.kind)


@dataclass(frozen=True, slots=True)
class RemovePayloadIndex:
    """Remove the index of a `meta` field; filters on it then scan.

    Raises:
        UsageError: If the name is not valid.
    """

    field: str

    def __post_init__(self) -> None:
        check_field(self.field)

    def cost(self, target: Target) -> str:
        """Report the effect on filters."""
        if not target.store.capabilities.payload_indexes:
            return _missing(target, "payload index")
        if _index_kinds(target, self.field) == {None}:
            return "nothing changes: it has no index"
        points = target.collection.info().points
        return f"almost nothing; filters on '{self.field}' then read up to {points:,} payloads"

    def apply(self, target: Target) -> None:
        """Remove the index."""
        if target.store.capabilities.payload_indexes:
            admin = target.store.admin_collection(target.plan.physical)
            target.check()
            for key in payload_keys(self.field):
                admin.drop_payload_index(key)


@dataclass(frozen=True, slots=True)
class SetBm25:
    """Change the BM25 settings and recompute every sparse vector; None leaves a value unchanged.

    After an interruption it resumes: correct vectors are not written again. End running ingests
    first, because they keep the old settings. Open clients again after a change of the language,
    because they keep the old tokens.

    Raises:
        UsageError: If a value is invalid or the language is unknown.
    """

    k: float | None = None
    b: float | None = None
    avg_len: float | None = None
    language: str | None = None

    def __post_init__(self) -> None:
        _require_change(self, "SetBm25(k=..., ...)")
        _check_numbers(float, k=self.k, b=self.b, avg_len=self.avg_len)
        if not isinstance(self.language, str | None):
            raise UsageError(f"language must be a string, got {self.language!r}")
        Bm25Encoder(self._merge(Bm25Settings()))

    def cost(self, target: Target) -> str:
        """Report the number of texts that are read."""
        current, points = _bm25(target), target.collection.info().points
        new = self._merge(current)
        if new == current:
            return (
                f"nothing changes; {points:,} texts are read to check their vectors, and an "
                "incomplete index is completed"
            )
        graph = ""
        if target.store.capabilities.ann:
            effect = _effect_on_searches(target)
            graph = f"then the graph of {points:,} vectors is rebuilt: {effect}; "
        change = (
            f"{_bm25_text(current)} -> {_bm25_text(new)}: {points:,} texts are read and their "
            "sparse vectors rewritten; until then searches mix BM25 scores of both settings; "
            f"{graph}end running ingests first"
        )
        if new.language == current.language:
            return change
        return f"{change}, and open clients again afterwards: they keep the old language"

    def apply(self, target: Target) -> None:
        """Rewrite the sparse vectors, store the settings, then rewrite what came in between.

        The graph is rebuilt last, because an engine moves rewritten points to segments without a
        graph. It is rebuilt even if no vector changed: an earlier run may have been interrupted.
        """
        new = self._merge(_bm25(target))
        rewrite_sparse(target, Bm25Encoder(new))
        if _bm25(target) != new:
            metadata = target.store.metadata(target.plan.physical)
            target.check()  # after the read: the ledger and all other metadata stay
            target.store.put_metadata(target.plan.physical, replace(metadata, bm25=new))
            rewrite_sparse(target, Bm25Encoder(new))
        _index(target)

    def _merge(self, current: Bm25Settings) -> Bm25Settings:
        given = {"k": self.k, "b": self.b, "avg_len": self.avg_len}
        numbers = {name: float(value) for name, value in given.items() if value is not None}
        return replace(current, **numbers, language=self.language or current.language)


# ---- shared parts --------------------------------------------------------------------------


def _index(target: Target) -> None:
    if target.collection.info().points:
        target.collection.optimize()


def _missing(target: Target, feature: str) -> str:
    return f"nothing: {target.store.capabilities.engine} has no {feature}"


def _effect_on_searches(target: Target) -> str:
    if target.store.capabilities.multi_process:
        return "the server does it in the background, and searches continue"
    return "searches of this process wait until it is done"


def _storage_text(spec: CollectionSpec) -> str:
    place = "on disk" if spec.storage.on_disk else "in memory"
    return f"{place}, quantization {spec.storage.quantization}"


def _megabytes(spec: CollectionSpec, points: int) -> str:
    """The memory of the vectors and their quantized copy; float32 vectors on disk count as 0."""
    each = _BYTES_PER_DIMENSION[spec.storage.quantization] + (0 if spec.storage.on_disk else 4)
    return f"{each * spec.dimension * points / 1e6:,.0f} MB"


def _index_kinds(target: Target, field: str) -> set[PayloadIndex | None]:
    """Return the kinds of the indexes of a field, None for one of its keys without an index."""
    indexes = target.collection.spec().payload_indexes
    return {index_kind(indexes, key) for key in payload_keys(field)}


def _bm25(target: Target) -> Bm25Settings:
    return target.store.metadata(target.plan.physical).bm25


def _bm25_text(settings: Bm25Settings) -> str:
    return f"k={settings.k} b={settings.b} avg_len={settings.avg_len} {settings.language}"


def _require_change(operation: DataclassInstance, example: str) -> None:
    if all(value is None for value in asdict(operation).values()):
        raise UsageError(f"at least one value must be given, such as {example}")


def _check_numbers(
    kind: type[int] | type[float], minimum: float = -math.inf, **values: object
) -> None:
    """Refuse values that are neither None nor such a number; bool is not a number here."""
    accepted, noun = (int, "an integer") if kind is int else ((int, float), "a number")
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise UsageError(f"{name} must be {noun}, got {value!r}")
        if value < minimum:
            raise UsageError(f"{name} must be at least {minimum}, got {value}")
