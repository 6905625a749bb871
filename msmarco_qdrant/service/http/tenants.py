"""A search client of one tenant, for the requests with its token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.problems import ProblemError


class TenantSearcher:
    """The reads of a search client, each with the tenant. It has no other methods.

    Each returns what the client returns.

    Args:
        client: The client.
        tenant: The tenant.
    """

    def __init__(self, client: Any, tenant: str) -> None:
        self._client = client
        self._tenant = tenant

    def search_many(self, queries: Sequence[str], **options: Any) -> Any:
        """Return the hits of each query."""
        return self._client.search_many(queries, **self._bound(options))

    def rank(self, query: str, pids: Sequence[str], **options: Any) -> Any:
        """Return the hits of given passages."""
        return self._client.rank(query, pids, **self._bound(options))

    def similar(self, **options: Any) -> Any:
        """Return the hits most similar to examples."""
        return self._client.similar(**self._bound(options))

    def get(self, pids: Iterable[str], **options: Any) -> Any:
        """Return passages by pid."""
        return self._client.get(pids, **self._bound(options))

    def count(self, **options: Any) -> Any:
        """Return the number of passages."""
        return self._client.count(**self._bound(options))

    def scroll(self, **options: Any) -> Any:
        """Return passages one after the other."""
        return self._client.scroll(**self._bound(options))

    def facets(self, field: str, **options: Any) -> Any:
        """Return the values of a field, each with its number of passages."""
        return self._client.facets(field, **self._bound(options))

    def _bound(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return options with the tenant.

        Raises:
            ProblemError: If they name another one.
        """
        if options.get("tenant") not in (None, self._tenant):
            raise ProblemError(problems.WRONG_TOKEN, "Expected the tenant of the token, or none.")
        return {**options, "tenant": self._tenant}
