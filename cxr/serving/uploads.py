"""Uploads: taken in memory alone, so that nothing is left of them however they end; of limited size and number."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

MAX_UPLOAD = 50_000_000  # bytes
SECONDS = 60  # for one to arrive
AT_ONCE = 8  # are in memory
WAITING = 100  # beside those; further ones are refused


class Queue:
    """Limits how many uploads are handled at once, and how many may wait."""

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        self.most, self.inside, self.turns = at_once + waiting, 0, asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it in this block. Raises HTTPException 503 if too many wait."""
        if self.inside >= self.most:
            raise HTTPException(503)
        self.inside += 1
        try:
            async with self.turns:
                yield
        finally:
            self.inside -= 1


async def read_upload(request: Request) -> bytes:
    """The body of a request. Raises HTTPException: 413 for more than MAX_UPLOAD bytes, and no more are read; 408
    if it takes longer than SECONDS or the sender leaves."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > MAX_UPLOAD:
        raise HTTPException(413)
    content = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > MAX_UPLOAD:
                    raise HTTPException(413)
    except (TimeoutError, ClientDisconnect):
        raise HTTPException(408) from None
    return bytes(content)
