"""Index the payload fields used in filters, before passages are written."""

from msmarco_qdrant.migration import CollectionPlan, PayloadIndex
from msmarco_qdrant.stores import Store

DESCRIPTION = "payload indexes of the write time (seq) and of the requested fields"
COST = "almost nothing: a collection older than this migration has its indexes already"


def up(store: Store, plan: CollectionPlan) -> None:
    """Index `seq` and the fields of `plan`; existing indexes stay as they are."""
    if not store.capabilities.payload_indexes:
        return
    wanted: dict[str, PayloadIndex] = {"seq": "integer", **plan.payload_indexes}
    collection = store.admin_collection(plan.physical)
    for field, kind in wanted.items():
        collection.create_payload_index(field, kind)
