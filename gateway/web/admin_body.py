"""Bodies of requests to the admin plane: so many bytes, in so much time, and never decoded by what the client
says of them. Some codecs that a client can name take minutes for a megabyte."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from gateway.web.admin_api import AdminError

MAX_JSON_BYTES: Final = 65_536
"""Of a change of budgets."""
MAX_FORM_BYTES: Final = 16_384
"""Of a form: a reason of 500 letters of any script, and a name, fit in."""
BODY_SECONDS: Final = 15.0
"""For a body of that size to arrive."""
UNREADABLE: Final = "The request's body cannot be read; it is broken, or not complete."


async def body_of(
    request: web.Request, *, most_bytes: int, seconds: float | None = None, too_large: str = ""
) -> bytes:
    """All of it, without its content encoding. Raises `AdminError`: 400 where it ends early or cannot be
    unpacked, 408 where it does not arrive within `seconds`, 413 where it is larger; `too_large` says so."""
    pieces, length = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS if seconds is None else seconds):
            async for piece in request.content.iter_any():
                length += len(piece)
                if length > most_bytes:
                    raise AdminError(413, too_large or f"Send {most_bytes:,} bytes at most.")
                pieces.append(piece)
    except TimeoutError:
        raise AdminError(408, "The request's body did not arrive in time.") from None
    except (web.RequestPayloadError, ConnectionError):
        raise AdminError(400, UNREADABLE) from None
    return b"".join(pieces)
