"""Bodies, read within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from starlette.requests import ClientDisconnect, Request

from velfield.service.limits import Limits
from velfield.service.problems import Problem

NPZ = "application/x-npz"
JSON = "application/json"
SLOWEST = 2**16  # bytes a second


def check_head(request: Request, media_types: Sequence[str], largest: int) -> tuple[str, int]:
    """Type and length of a body by its head; refuses others, no length and too much before any of it is read."""
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    taken = " or ".join(media_types)
    if found not in media_types:
        raise Problem(415, f"not a body that is taken here: content-type={found[:80]!r}", f"send {taken}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "a body with a content-encoding", "send it as it is; an npz may be compressed inside")
    stated = request.headers.get("content-length", "")
    if not stated.isdigit() or len(stated) > 15:
        raise Problem(411, "a body without a length", "send Content-Length, not chunks")
    if int(stated) > largest:
        raise Problem(413, f"the body is too large: bytes={stated}, limit={largest}", "send less")
    if int(stated) == 0:
        raise Problem(422, "the body is empty: bytes=0", f"send {taken}")
    return found, int(stated)


async def pieces(request: Request, length: int, limits: Limits) -> AsyncIterator[bytes]:
    """The body, piece by piece; 408 where it comes too slowly."""
    got, stream = 0, request.stream().__aiter__()
    began = asyncio.get_running_loop().time()
    while True:
        try:
            async with asyncio.timeout_at(began + limits.patience + got / SLOWEST):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except ClientDisconnect as error:
            raise Problem(400, f"the client left: bytes={got} of {length}", "stay until the answer") from error
        except TimeoutError as error:
            raise Problem(
                408, f"the body came too slowly: bytes={got} of {length}", "send it faster", {"Connection": "close"}
            ) from error
        got += len(piece)
        if piece:
            yield piece


async def receive(request: Request, media_type: str, largest: int, limits: Limits) -> bytes:
    """The whole body."""
    _, length = check_head(request, [media_type], largest)
    return b"".join([piece async for piece in pieces(request, length, limits)])
