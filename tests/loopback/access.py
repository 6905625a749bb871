"""Tokens that are limited to collections, as the real server's JSON Web Tokens are.

The rules are those of lib/storage/src/rbac and of its callers: a name is looked up in the token as
the request has it, an alias too. Lists contain only what the token names; an alias only if the
token names its collection, too. Collections, their settings and aliases need global rights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.loopback.statuses import Mistake

CollectionRights = Mapping[str, Literal["r", "rw"]]
Rights = Literal["r", "m"] | CollectionRights
"""Rights of a token: global ones, to read or to manage, or rights by the name of a collection."""

_LISTS = frozenset({"Collections.List", "Collections.ListAliases"})
_COLLECTION_READS = frozenset(
    {
        *(f"Collections.{one}" for one in ("Get", "CollectionExists", "CollectionClusterInfo")),
        *(f"Points.{one}" for one in ("Get", "Scroll", "Count")),
        *(f"Points.Query{one}" for one in ("", "Batch", "Groups")),
        "Snapshots.list",
        "Snapshots.download",
    }
)
_MANAGED = frozenset(
    {
        *(
            f"Collections.{one}"
            for one in ("Create", "CreateShardKey", "Update", "Delete", "UpdateAliases")
        ),
        "Snapshots.upload",
    }
)


def is_read(rpc: str) -> bool:
    """True for a call that changes nothing."""
    return rpc in _LISTS or rpc in _COLLECTION_READS


@dataclass(frozen=True, slots=True)
class Access:
    """What a token may do."""

    rights: Rights

    def check(self, rpc: str, message: Any) -> None:
        """Refuse a call that the token has no right for.

        Raises:
            RefusalError: PERMISSION_DENIED, in the real server's words.
        """
        if rpc in _LISTS or rpc == "Qdrant.HealthCheck" or self.rights == "m":
            return
        if self.rights == "r":
            if not is_read(rpc):
                raise Mistake.READ_ONLY_KEY.refusal()
        elif rpc in _MANAGED:
            raise Mistake.NOT_GLOBAL.refusal()
        else:
            self._check_collection(rpc, message.collection_name)

    def _check_collection(self, rpc: str, name: str) -> None:
        assert not isinstance(self.rights, str)
        if name not in self.rights:
            raise Mistake.NO_ACCESS.refusal(name=name)
        if not is_read(rpc) and self.rights[name] != "rw":
            raise Mistake.NO_WRITE_ACCESS.refusal(name=name)

    def filtered(self, rpc: str, answer: Any) -> Any:
        """The part of a list that the token sees; another answer as it is."""
        if isinstance(self.rights, str) or rpc not in _LISTS:
            return answer
        kept, seen = type(answer)(), self.rights
        if rpc == "Collections.List":
            kept.collections.extend(one for one in answer.collections if one.name in seen)
        else:
            kept.aliases.extend(
                one
                for one in answer.aliases
                if one.alias_name in seen and one.collection_name in seen
            )
        return kept
