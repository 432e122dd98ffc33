"""Secrets by reference: read from a variable or a file when they are needed, shown by nothing.

What is read here lives in closures and never in a field that a `repr`, a dump or a log could show.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gateway.core.errors import ConfigError, CredentialUnavailable
from gateway.settings.gateway import (
    LEDGER_KEY_FILE,
    PREFIX_SECRET_FILE,
    CredentialHeader,
    GatewayFile,
    Upstream,
)
from gateway.settings.shared import SecretRef

LEAST_PREFIX_SECRET_BYTES = 32
LARGEST_SECRET_BYTES = 64 << 10

_REDIS_SCHEMES = (
    "unix://",
    *(f"{scheme}{kind}://" for scheme in ("redis", "rediss") for kind in ("", "+sentinel", "+cluster")),
)
"""`redis+sentinel://[user:password@]h1,h2:26379,h3/mymaster/0`, with `?sentinel_username=&sentinel_password=`
where the Sentinels ask for them, and `redis+cluster://h1,h2:6379`."""

HeaderLines = Sequence[tuple[bytes, bytes]]


def upstream_credential(
    name: str, upstream: Upstream, environ: Mapping[str, str]
) -> Callable[[], HeaderLines]:
    """What puts the upstream's header lines on a request.

    A file is looked at for every request (one `stat`) and read when it changed, so that a rotated credential
    holds from the next request on. Calling it raises `CredentialUnavailable`, naming the reference.
    """
    if upstream.federation is not None:
        return _not_yet(name)
    read = secret_reader(upstream.credential, environ)
    rest = other_lines(upstream)
    made: tuple[str, HeaderLines] | None = None

    def lines() -> HeaderLines:
        nonlocal made
        try:
            secret = read()
        except (OSError, ValueError) as error:
            raise CredentialUnavailable(
                f"The credential of upstream {name!r} ({upstream.credential}) cannot be used: {error}."
            ) from None
        if made is None or made[0] is not secret:
            made = (secret, (_credential_line(upstream.header, secret), *rest))
        return made[1]

    return lines


def is_available(ref: SecretRef, environ: Mapping[str, str]) -> bool:
    """Whether the reference leads to something usable at this moment."""
    try:
        secret_reader(ref, environ)()
    except (OSError, ValueError):
        return False
    return True


def admin_token(gateway: GatewayFile, environ: Mapping[str, str]) -> str | None:
    """The token of the admin plane, where one is asked for. Raises `ConfigError`."""
    return _token("listen.admin_token", gateway.listen.admin_token, environ)


def metrics_token(gateway: GatewayFile, environ: Mapping[str, str]) -> str | None:
    """The token that opens the metrics alone, where there is one. Raises `ConfigError`."""
    return _token("listen.metrics_token", gateway.listen.metrics_token, environ)


def _token(setting: str, ref: SecretRef | None, environ: Mapping[str, str]) -> str | None:
    if ref is None:
        return None
    try:
        return secret_reader(ref, environ)()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{setting} ({ref}) cannot be used: {error}") from None


def store_url(gateway: GatewayFile, environ: Mapping[str, str]) -> str:
    """The URL of the Redis store, which may hold its password. Raises `ConfigError`."""
    ref = gateway.store.url
    try:
        url = secret_reader(ref, environ)()
    except (OSError, ValueError) as error:
        raise ConfigError(f"store.url ({ref}) cannot be used: {error}") from None
    if not url.startswith(_REDIS_SCHEMES):
        raise ConfigError(f"store.url ({ref}) is not a URL of Redis, as redis://host:6379/0")
    return url


def ledger_url(gateway: GatewayFile, environ: Mapping[str, str]) -> str:
    """The URL of the shared ledger, which may hold its password. Raises `ConfigError`."""
    ref = gateway.ledger.url
    try:
        url = secret_reader(ref, environ)()
    except (OSError, ValueError) as error:
        raise ConfigError(f"ledger.url ({ref}) cannot be used: {error}") from None
    if not url.startswith(("postgresql://", "postgres://")):
        raise ConfigError(f"ledger.url ({ref}) is not a URL of PostgreSQL, as postgresql://user@host/name")
    return url


def ledger_key(gateway: GatewayFile, environ: Mapping[str, str]) -> bytes:
    """The key of the ledger's digests; made now where a file is to be generated and is not there. Raises
    `ConfigError`."""
    return _secret(gateway.ledger.key, gateway.state_path(LEDGER_KEY_FILE), environ, "ledger.key")


def prefix_secret(gateway: GatewayFile, environ: Mapping[str, str]) -> bytes:
    """The secret that keys the digests of prefixes; made now where a file is to be generated and is not
    there. Raises `ConfigError`."""
    path = gateway.state_path(PREFIX_SECRET_FILE)
    return _secret(gateway.prefixes.secret, path, environ, "prefixes.secret")


def _secret(source: SecretRef | None, path: Path, environ: Mapping[str, str], setting: str) -> bytes:
    """What the setting names, else what `path` holds, made where it is missing."""
    try:
        if source is None:
            return _kept(path)
        secret = secret_reader(source, environ)().encode()
        _check_length(secret)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{setting} cannot be used: {error}") from None
    return secret


def _kept(path: Path) -> bytes:
    """What the state directory keeps, or from now on does. Raises `ConfigError`, `ValueError`."""
    try:
        return _generated(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read or made: {error.strerror or error}. It is kept in state.directory, which "
            "has to be a directory that the gateway's user may write to."
        ) from None


def secret_reader(ref: SecretRef, environ: Mapping[str, str]) -> Callable[[], str]:
    """Reads what `ref` names. Raises `OSError`, or `ValueError` without a word of what was read."""
    if ref.file is not None:
        return _FileReader(Path(ref.file))
    name = ref.env or ""
    value = environ.get(name, "")

    def read() -> str:
        if not value:
            raise ValueError(f"the variable {name} is not set")
        return _checked(value)

    return read


class _FileReader:
    """Reads a file again only when it is another one, or another version of it."""

    __slots__ = ("_path", "_seen", "_text")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._text = ""

    def __call__(self) -> str:
        found = self._path.stat()
        version = (found.st_mtime_ns, found.st_size, found.st_ino)
        if version != self._seen:
            if found.st_size > LARGEST_SECRET_BYTES:
                raise ValueError("the file is too large")
            self._text = _checked(self._path.read_bytes().decode("ascii", "replace").strip())
            self._seen = version
        return self._text


def _checked(text: str) -> str:
    # A line break here would let whoever writes the file add header lines.
    if not text:
        raise ValueError("it is empty")
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("it holds characters that a header must not")
    return text


def _credential_line(header: CredentialHeader, secret: str) -> tuple[bytes, bytes]:
    if header is CredentialHeader.X_API_KEY:
        return (b"x-api-key", secret.encode())
    return (b"authorization", b"Bearer " + secret.encode())


def other_lines(upstream: Upstream) -> HeaderLines:
    """What goes with the upstream's credential."""
    lines = []
    betas = (*upstream.betas, *(upstream.federation.call_betas if upstream.federation else ()))
    if upstream.workspace_id is not None:
        lines.append((b"anthropic-workspace-id", upstream.workspace_id.encode()))
    if betas:
        lines.append((b"anthropic-beta", ",".join(dict.fromkeys(betas)).encode()))
    return lines


def _not_yet(name: str) -> Callable[[], HeaderLines]:
    def lines() -> HeaderLines:
        # Tokens are got by a gateway that runs; it puts itself in the place of this.
        raise CredentialUnavailable(f"The token of upstream {name!r} was not got yet.")

    return lines


def _generated(path: Path) -> bytes:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and linked, so that two replicas on one disk agree and nobody reads half a secret.
        aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_hex(LEAST_PREFIX_SECRET_BYTES).encode())
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        finally:
            aside.unlink()
    secret = path.read_bytes().strip()
    _check_length(secret)
    return secret


def _check_length(secret: bytes) -> None:
    if len(secret) < LEAST_PREFIX_SECRET_BYTES:
        raise ValueError(f"it is shorter than {LEAST_PREFIX_SECRET_BYTES} bytes")
