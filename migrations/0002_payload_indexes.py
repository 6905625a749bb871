"""Index the payload fields that are looked up, before passages come."""

from msmarco_qdrant.core.records import PayloadIndex
from msmarco_qdrant.migration import CollectionPlan
from msmarco_qdrant.stores import Store

DESCRIPTION = "payload indexes of the time of writing and of the fields that were asked for"
COST = "next to nothing: a collection that is older than this migration has its indexes already"


def up(store: Store, plan: CollectionPlan) -> None:
    """Index `seq` and the fields of `plan`; one that is indexed already stays as it is."""
    if not store.capabilities.payload_indexes:
        return
    wanted: dict[str, PayloadIndex] = {"seq": "integer", **plan.payload_indexes}
    collection = store.admin_collection(plan.physical)
    for field, kind in wanted.items():
        collection.create_payload_index(field, kind)
