"""What stands in headers, tokens, key sets and tables: each is taken, or refused in its own way."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Sequence

from gateway.adapters.jwks import read_keys
from gateway.core.bearer import Algorithm, BadToken, Issuer, check_claims, read_token
from gateway.core.errors import Unauthenticated
from gateway.core.ids import WorkspaceId
from gateway.core.periods import read_span
from gateway.core.principal import RANDOM_BYTES, Keyring, mint_key
from gateway.core.report_lines import csv_lines
from gateway.core.trace_context import MOST_STATE_BYTES, read_parent
from gateway.web.page.tables import Cell, Column, Table, as_csv
from tests.fuzz.target import Target, pure

KEY, RECORD = mint_key(
    random_bytes=bytes([7]) * RANDOM_BYTES, name="fuzz", workspace=WorkspaceId("w"), created_at=0.0
)
RING = Keyring([RECORD], {WorkspaceId("w"): "o"})
ISSUER = Issuer(
    name="test",
    issuer="https://issuer.test",
    audiences=("gateway",),
    algorithms=frozenset(Algorithm),
    leeway_seconds=10.0,
    subject="sub",
    rules=(),
)


def check_key(data: bytes) -> None:
    """Nothing but the key itself is the key."""
    text = data.decode("latin-1")
    for credential in (data, text):
        try:
            RING.identify(credential, 1.0)
        except Unauthenticated:
            continue
        assert text == KEY


def check_token(data: bytes) -> None:
    try:
        token = read_token(data)
    except BadToken:
        return
    header, claims, _ = data.split(b".")
    assert json.loads(_plain(claims)) == token.claims
    assert json.loads(_plain(header))["alg"] == token.algorithm
    assert token.signed == header + b"." + claims
    try:
        until = check_claims(token, ISSUER, 1_000.0)
    except BadToken:
        return
    assert until > 1_000.0


def _plain(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def check_key_set(data: bytes) -> None:
    try:
        keys = read_keys(data)
    except ValueError:
        return
    assert keys
    for verify in keys.values():
        assert not verify(b"signed", b"signature")


def check_tables(data: bytes) -> None:
    """No cell of a table is a formula to a spreadsheet, whatever white space it begins with; and it is the
    text that it was."""
    text = data.decode("utf-8", "replace")
    table = Table(
        caption="A table",
        columns=(Column(title="T", key="t"), Column(title="N", key="n")),
        rows=[[Cell(text=text), Cell(text="-1.5")]],
    )
    for written in (as_csv(table, {}), "".join(csv_lines(["t", "n"], [{"t": text, "n": "-1.5"}]))):
        (_, row) = csv.reader(io.StringIO(written, newline=""), strict=True)
        cell = row[0]
        assert cell in (text, f"'{text}")
        assert row[1] == "-1.5"
        begins = cell.lstrip()[:1]
        assert begins not in tuple("=+@＝＋－＠")
        assert begins != "-" or _is_number(cell)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell[1:].replace(".", "", 1).isdigit()


def check_trace(data: bytes) -> None:
    """A caller's trace, as it is read and as it is written again, reads the same."""
    parent, _, state = data.partition(b"\n")
    found = read_parent([(b"traceparent", parent), (b"tracestate", state)])
    if found is None:
        return
    assert found.trace_id
    assert found.span_id
    assert len(found.state) <= MOST_STATE_BYTES
    written = b"00-%032x-%016x-%02x" % (found.trace_id, found.span_id, found.flags)
    assert read_parent([(b"traceparent", written), (b"tracestate", found.state)]) == found


def check_span(data: bytes) -> None:
    """A name of a time in a URL or an argument: a span that is one, or an error in words."""
    try:
        span = read_span(data.decode("utf-8", "replace"), 1_795_000_000_000)
    except ValueError as error:
        assert str(error)
        return
    assert span.start_ms < span.end_ms


def tokens() -> Sequence[bytes]:
    def token(header: object, claims: object) -> bytes:
        parts = (
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)
        )
        return b".".join((*parts, b"c2lnbmF0dXJl"))

    claims = {"iss": "https://issuer.test", "aud": "gateway", "exp": 2_000, "nbf": 10, "sub": "a"}
    return [
        token({"alg": "RS256", "kid": "1", "typ": "JWT"}, claims),
        token({"alg": "ES256"}, {**claims, "aud": ["a", "gateway"], "exp": 2_000.5}),
        token({"alg": "none"}, claims),
    ]


def key_sets() -> Sequence[bytes]:
    octets = base64.urlsafe_b64encode(b"\x99" * 256).rstrip(b"=").decode()
    point = base64.urlsafe_b64encode(b"\x01" * 32).rstrip(b"=").decode()
    keys = [
        {"kty": "RSA", "kid": "1", "n": octets, "e": "AQAB", "alg": "RS256", "use": "sig"},
        {"kty": "EC", "crv": "P-256", "x": point, "y": point},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty": "oct", "k": octets[:20]},
    ]
    return [json.dumps({"keys": [key]}).encode() for key in keys] + [json.dumps({"keys": keys}).encode()]


def of(*texts: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [text.encode() for text in texts]


_TOKEN_WORDS = (b".", b"..", b"eyJhbGciOiJub25lIn0", b"=", b"-", b"_", b"e30", b"W10", b"bnVsbA", b"MWU5OTk")
_KEY_WORDS = (
    b'"kty"', b'"RSA"', b'"EC"', b'"OKP"', b'"oct"', b'"crv"', b'"P-256"', b'"P-521"', b'"Ed448"', b'"n"',
    b'"e"', b'"x"', b'"y"', b'"alg"', b'"RS512"', b'"d"', b'"AA"', b'"AQ"', b"[]", b'"keys"', b'"key_ops"',
    b'["sign"]',
)  # fmt: skip
_FORMULAS = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    " ",
    "\r",
    "\n",
    "'",
    '"',
    ",",
    ";",
    "-1",
    "\u00a0",
    "\u200b",
    "\uff1d",
)

TARGETS = (
    Target(name="key", open=pure(check_key), seeds=of(KEY, KEY[:-1]), words=(b"cgw_", b"_"), rounds=500),
    Target(name="token", open=pure(check_token), seeds=tokens, words=_TOKEN_WORDS, rounds=1_000),
    Target(name="key-set", open=pure(check_key_set), seeds=key_sets, words=_KEY_WORDS, rounds=500),
    Target(
        name="trace-header",
        open=pure(check_trace),
        seeds=of(
            "00-" + "a" * 32 + "-" + "b" * 16 + "-03\nvendor=a,t1@v=b c",
            "cc-" + "1" * 32 + "-" + "2" * 16 + "-01-x",
        ),
        rounds=300,
    ),
    Target(
        name="span",
        open=pure(check_span),
        seeds=of("2026-11", "last-7-days", "24h", "2026-11-01..2026-11-22"),
        rounds=300,
    ),
    Target(
        name="table",
        open=pure(check_tables),
        seeds=of("claude-opus-5-5", "=cmd|' /C calc'!A0", "-1.5", "-2+3", 'plain, "quoted"\r\n', "\t=1"),
        words=tuple(word.encode() for word in _FORMULAS),
        rounds=800,
    ),
)
