"""Hours, GPUs, shards and memory by node of a large collection, computed from measured rates.

Nothing is run: the formulas of docs/scale.md are applied to the rates below, each with its source.
No cluster of this size was measured.

    python benchmarks/cost.py [--passages 100000000 1000000000] [--replication 2]
        [--node-memory 64] [--node-cores 16] [--gpus 8] [--json FILE]
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from harness import Report, Row, json_option

ENCODE_PER_GPU = 65_831
"""Passages per second of one H200, DistilBERT's shape: RESULTS, "Encoding on a GPU"."""
WRITES_PER_CORE = 23_000
"""Points per second that Qdrant's engine takes in one thread of Edge, with payload and BM25."""
INDEX_MINUTES = 41
"""Core minutes of a graph of a million vectors: RESULTS, "A million passages in a directory".

The larger of two machines: 384 dimensions on one, 768 took 28 on the other.
"""
INDEX_MEASURED_AT = 1_000_000
DIMENSIONS = (384, 768)
BYTES_PER_DIMENSION = {"int8": 1.0, "turbo4": 0.5}
MEMORY_PER_PASSAGE, DISK_PER_PASSAGE = 270, 1_900
MEMORY_SHARE = 0.75
"""The part of a node's memory that the collection may take."""
LEAST_NODES, SHARDS_PER_NODE = 3, 2


@dataclass(frozen=True)
class Plan:
    """A collection and its nodes.

    Attributes:
        passages: Number of passages.
        dimension: Length of a vector.
        quantization: "int8" or "turbo4"; float32 vectors are on disk.
        replication: Copies of each shard.
        node_memory: Decimal gigabytes of a node.
        node_cores: Cores of a node.
        gpus: GPUs that encode.
    """

    passages: int
    dimension: int
    quantization: str
    replication: int = 2
    node_memory: float = 64
    node_cores: int = 16
    gpus: int = 8

    @property
    def quantized_bytes(self) -> float:
        """Bytes of a quantized vector."""
        return BYTES_PER_DIMENSION[self.quantization] * self.dimension

    @property
    def memory(self) -> float:
        """Gigabytes of memory of all copies."""
        each = self.quantized_bytes + MEMORY_PER_PASSAGE
        return self.passages * self.replication * each / 1e9

    @property
    def disk(self) -> float:
        """Gigabytes on disk of all copies."""
        each = 4 * self.dimension + self.quantized_bytes + DISK_PER_PASSAGE
        return self.passages * self.replication * each / 1e9

    @property
    def nodes(self) -> int:
        """Nodes that have the memory."""
        return max(LEAST_NODES, math.ceil(self.memory / (MEMORY_SHARE * self.node_memory)))

    @property
    def shards(self) -> int:
        """Shards, so that each node has some of them with their copies."""
        return SHARDS_PER_NODE * self.nodes // self.replication or 1

    @property
    def encode_hours(self) -> float | None:
        """Hours of the GPUs; None where no rate was measured."""
        if self.dimension != 768:
            return None
        return self.passages / (ENCODE_PER_GPU * self.gpus) / 3600

    @property
    def write_hours(self) -> float:
        """Hours of writing, with one core of each node."""
        return self.passages * self.replication / (WRITES_PER_CORE * self.nodes) / 3600

    @property
    def index_hours(self) -> float:
        """Hours of the graphs, with all cores; a graph of more vectors takes longer for each."""
        growth = math.log(self.passages / self.shards) / math.log(INDEX_MEASURED_AT)
        minutes = INDEX_MINUTES * self.passages * self.replication / 1e6 * growth
        return minutes / (self.nodes * self.node_cores) / 60


def to_row(plan: Plan) -> Row:
    """Return the row of a plan."""
    encode = plan.encode_hours
    return Row(
        (
            f"{plan.passages:,}",
            plan.dimension,
            plan.quantization,
            plan.nodes,
            plan.shards,
            f"{plan.memory / plan.nodes:,.0f}",
            f"{plan.disk / plan.nodes:,.0f}",
            "not measured" if encode is None else f"{encode:.2f}",
            f"{plan.write_hours:.2f}",
            f"{plan.index_hours:.1f}",
        )
    )


HEAD = (
    *("passages", "dimension", "quantization", "nodes", "shards", "memory by node, GB"),
    *("disk by node, GB", "encode, h", "write, h", "graphs, h"),
)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, nargs="+", default=[100_000_000, 1_000_000_000])
    parser.add_argument("--replication", type=int, default=Plan.replication)
    parser.add_argument("--node-memory", type=float, default=Plan.node_memory, metavar="GB")
    parser.add_argument("--node-cores", type=int, default=Plan.node_cores)
    parser.add_argument("--gpus", type=int, default=Plan.gpus)
    json_option(parser)
    options = parser.parse_args()
    of = (options.replication, options.node_memory, options.node_cores, options.gpus)
    if min(*options.passages, *of) < 1:
        parser.error("each number must be 1 or more")
    rows = [
        to_row(Plan(passages, dimension, quantization, *of))
        for passages in options.passages
        for dimension in DIMENSIONS
        for quantization in BYTES_PER_DIMENSION
    ]
    Report(options.json, ()).table(HEAD, rows)


if __name__ == "__main__":
    main()
