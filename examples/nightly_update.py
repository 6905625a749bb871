"""Make a collection equal to tonight's file: python examples/nightly_update.py FILE STORE.

Unchanged passages cost no encoding. Passages that the file lacks are deleted, at most a fifth of
the collection: a file that was cut off deletes nothing and ends with an error. Exit status: 0
success, 1 nothing was deleted or the ingest failed; both can be repeated.
"""

import sys

from msmarco_qdrant import MsmarcoQdrantError, PrunePolicy, ingest_passages


def main(path: str, store: str, model: str = "all-MiniLM-L6-v2") -> int:
    """Ingest the file, then delete what it lacks."""
    try:
        report = ingest_passages(
            path, store, collection="products", model=model, prune=PrunePolicy(max_share=0.2)
        )
    except MsmarcoQdrantError as exc:
        print(f"update failed: {exc}", file=sys.stderr)
        return 1
    print(f"{report.written} written, {report.unchanged} unchanged, {report.pruned} deleted")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
