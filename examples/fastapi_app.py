"""A search service in one process, with its data in a directory: search, add, update, delete.

MSMARCO_STORE=./qdrant_data uvicorn --app-dir examples fastapi_app:app

One process only (no `--workers`): a directory is for one. With a Qdrant server as the store, any
number of processes can serve and write.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from pydantic import BaseModel, Field

from msmarco_qdrant import AsyncSearchClient
from msmarco_qdrant.errors import UsageError


class PassageIn(BaseModel):
    """A passage to add or to replace."""

    pid: str = Field(min_length=1)
    text: str = Field(min_length=1)
    meta: dict[str, Any] = {}


class HitOut(BaseModel):
    """A found passage."""

    pid: str
    score: float
    text: str
    meta: dict[str, Any]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client at the start, load its model before the first query, close it at the end."""
    store = os.environ.get("MSMARCO_STORE", "./qdrant_data")
    async with await AsyncSearchClient.open(store, collection="films") as client:
        await client.warm_up()
        app.state.client = client
        yield


app = FastAPI(title="Films", lifespan=lifespan)


def get_client(request: Request) -> AsyncSearchClient:
    """Return the client of this process."""
    client: AsyncSearchClient = request.app.state.client
    return client


Client = Annotated[AsyncSearchClient, Depends(get_client)]


@app.get("/search")
async def search(
    client: Client,
    query: str,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    lang: str | None = None,
) -> list[HitOut]:
    """Search; concurrent requests are encoded in one batch."""
    wanted = None if lang is None else {"lang": lang}
    hits = await client.search(query, mode="hybrid", limit=limit, meta_filter=wanted)
    return [HitOut(pid=hit.pid, score=hit.score, text=hit.text, meta=hit.meta) for hit in hits]


@app.put("/passages")
async def put(client: Client, passages: list[PassageIn]) -> dict[str, int]:
    """Add or replace passages; they are on disk and searchable when this returns."""
    report = await client.upsert([passage.model_dump() for passage in passages])
    if report.rejected:
        raise HTTPException(422, [reject.reason for reject in report.rejects])
    return {"written": report.written, "unchanged": report.unchanged}


@app.delete("/passages/{pid}")
async def delete(client: Client, pid: str) -> dict[str, int]:
    """Delete a passage."""
    try:
        return {"deleted": await client.delete([pid])}
    except UsageError as exc:
        raise HTTPException(422, str(exc)) from exc
