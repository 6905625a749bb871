"""Whether the sidecar can do its work: checks, asked within a bound of time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.service.ports import Readiness
from msmarco_qdrant.service.problems import NOT_READY, ProblemError

_log = logging.getLogger(__name__)


async def ready_checks(readiness: Readiness, *, within_s: float) -> Mapping[str, str]:
    """Every check by its name, each "ok".

    Raises:
        ProblemError: If one is not, or they do not end in time; it tells which.
    """
    try:
        async with asyncio.timeout(within_s):
            checks = await readiness.checks()
    except TimeoutError:
        raise _not_ready({"checks": f"not done within {within_s:g} s"}) from None
    except MsmarcoQdrantError as exc:
        _log.warning("the checks of /readyz failed: %s", exc)
        raise _not_ready({"checks": "failed; the log tells why"}) from exc
    told = {check.name: check.problem or "ok" for check in checks}
    if any(check.problem for check in checks):
        raise _not_ready(told)
    return told


def _not_ready(checks: Mapping[str, str]) -> ProblemError:
    missing = [name for name, told in checks.items() if told != "ok"]
    return ProblemError(
        NOT_READY,
        f"Not ready yet: {', '.join(missing)}.",
        {"Retry-After": "5"},
        {"checks": dict(checks)},
    )
