"""Which header lines may cross the gateway, in each direction. Names are lower case already.

Requests lose what belongs to this hop, every credential, and what would let a client choose for the
gateway; everything else crosses, known or not, in order. Responses lose what belongs to upstream's hop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Header = tuple[bytes, bytes]
Headers = Sequence[Header]
"""Header lines in order, names in lower case, values undecoded; duplicates stay duplicates."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110, section 7.6.1, and the two that old proxies still send."""

_REQUEST_ONLY_HERE = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    # Credentials: a key of the gateway must never reach an upstream; the route sets exactly one of its own.
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"cookie",
    # Would choose the cache partition and the bill past the key's authorisation.
    b"anthropic-workspace-id",
    # About the client's side of the gateway, which is nobody's business upstream.
    b"forwarded",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-real-ip",
    b"baggage",
    # Ids of the client's trace; the gateway tells its own where that is configured.
    b"traceparent",
    b"tracestate",
}

_RESPONSE_ONLY_HERE = HOP_BY_HOP | {
    # A client that follows one leaves the gateway, and takes its key along.
    b"location",
    # Set by the provider's edge for its own host name; shared by all clients of the gateway if let through.
    b"set-cookie",
    b"alt-svc",
}

GATEWAY_PREFIX = b"x-gateway-"
"""Request headers so named speak to the gateway and stop here; response headers so named are its own."""

SINGLE = frozenset(
    {b"authorization", b"x-api-key", b"anthropic-version", b"content-type", b"content-encoding", b"host"}
)
"""Headers of which two lines would let two readers disagree about the request."""


def request_headers(
    headers: Headers, *, decoded: bool, identity: bool, drop: Sequence[str] = ()
) -> list[Header]:
    """What goes upstream, credential excepted.

    `decoded`: the body was decoded here, so its content-encoding no longer holds. `identity`: the answer is
    metered, so upstream is asked not to compress it; otherwise the client's own wish crosses. `drop`: tag
    headers, which are the gateway's own business.
    """
    named = connection_names(headers) | {name.encode() for name in drop}
    out: list[Header] = []
    lists: list[bytes] = []
    beta_at = -1
    for name, value in headers:
        if name in _REQUEST_ONLY_HERE or name in named or name.startswith(GATEWAY_PREFIX):
            continue
        if name == b"accept-encoding" and identity:
            continue
        if name == b"content-encoding" and decoded:
            continue
        if name == b"anthropic-beta":
            if beta_at < 0:
                beta_at = len(out)
                out.append((name, value))
            lists.append(value)
            continue
        out.append((name, value))
    if len(lists) > 1:
        # Several lines mean one list; joined in order, nothing added or dropped.
        out[beta_at] = (b"anthropic-beta", b",".join(lists))
    if identity:
        out.append((b"accept-encoding", b"identity"))
    return out


def with_credential(headers: list[Header], credential: Headers) -> list[Header]:
    """`headers` with the route's own credential lines. An `anthropic-beta` among them (a token that needs
    one) is appended to the client's list, not put in its place."""
    out = list(headers)
    for name, value in credential:
        at = next((i for i, line in enumerate(out) if line[0] == name), -1)
        if name == b"anthropic-beta" and at >= 0:
            present = betas(out)
            missing = [beta for beta in betas([(name, value)]) if beta not in present]
            out[at] = (name, b",".join([out[at][1], *missing]))
        elif at >= 0:
            out[at] = (name, value)
        else:
            out.append((name, value))
    return out


def response_headers(headers: Headers) -> list[Header]:
    """What reaches the client of upstream's head. Content-length crosses: the bytes are the same. A stream
    asks proxies between here and the client not to hold it back, as nginx does unless told."""
    dropped = connection_names(headers) | _RESPONSE_ONLY_HERE
    out = [line for line in headers if line[0] not in dropped and not line[0].startswith(GATEWAY_PREFIX)]
    streams = (value_of(out, b"content-type") or b"").lower().startswith(b"text/event-stream")
    if streams and value_of(out, _UNBUFFERED[0]) is None:
        out.append(_UNBUFFERED)
    return out


_UNBUFFERED = (b"x-accel-buffering", b"no")


def connection_names(headers: Headers) -> frozenset[bytes]:
    """Headers that a `connection` header declares to be of this hop only. A name that the API needs is
    never dropped by such a declaration."""
    names: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            names.update(item.strip().lower() for item in value.split(b","))
    return frozenset(names - {b"", b"close"} - _NEVER_NAMED)


_NEVER_NAMED = frozenset(
    (b"content-type", b"content-encoding", b"content-length", b"anthropic-version", b"anthropic-beta")
)


def repeated(headers: Headers) -> bytes | None:
    """The name of a header that occurs twice although it must not, or None."""
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in SINGLE:
            if name in seen:
                return name
            seen.add(name)
    return None


def betas(headers: Iterable[Header]) -> list[bytes]:
    """The values of all `anthropic-beta` lines, which are one list, in order; duplicates stay."""
    return [
        value
        for name, line in headers
        if name == b"anthropic-beta"
        for item in line.split(b",")
        if (value := item.strip())
    ]


def value_of(headers: Iterable[Header], name: bytes) -> bytes | None:
    """The first value of a header, or None."""
    for line in headers:
        if line[0] == name:
            return line[1]
    return None


def tags_of(
    headers: Headers, names: Sequence[str], given: tuple[tuple[str, str], ...] = ()
) -> tuple[tuple[str, str], ...]:
    """The values of the tag headers `names`, bounded in length, in the order in which they came. Those that
    are `given` come first, and headers of their names are not looked at."""
    if not names:
        return given
    wanted = {name.encode(): name for name in names if name not in dict(given)}
    return given + tuple(
        (wanted[name], value.decode("latin-1")[:200]) for name, value in headers if name in wanted
    )
