"""Import a CSV file whose columns need work first: python examples/csv_import.py FILE STORE.

A file whose columns are plain fields needs no program: `msmarco-qdrant ingest FILE` reads it.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from msmarco_qdrant import Passage, Reject, ingest_passages


def passages(path: Path) -> Iterator[Passage]:
    """Yield a passage per row: the title joined to the text, the price as a number."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            meta = {"price": float(row["price"]), "tags": row["tags"].split("|")}
            yield Passage(row["sku"], f"{row['name']} {row['description']}", meta)


def print_reject(reject: Reject) -> None:
    """Print a row that is not a valid passage, such as one without a text."""
    print(f"rejected: {reject.reason}", file=sys.stderr)


def main(path: str, store: str, model: str = "all-MiniLM-L6-v2") -> None:
    """Ingest the file; run it again after a change of the file to update the collection."""
    report = ingest_passages(
        passages(Path(path)),
        store,
        collection="products",
        model=model,
        payload_indexes={"price": "float", "tags": "keyword"},
        on_reject=print_reject,
    )
    print(f"{report.written} written, {report.unchanged} unchanged, {report.rejected} rejected")


if __name__ == "__main__":
    main(*sys.argv[1:])
