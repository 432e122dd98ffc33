"""Configuration: any text in place of a file is either settings, from which everything can be built, or an
error that says where it is wrong; in bounded time, and without a traceback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.core.errors import ConfigError
from gateway.settings.build import build_limits, build_schedules, declared_keys
from gateway.settings.load import load_settings
from gateway.settings.source import FILE_NAMES, read_environment
from tests.fuzz.target import Check, Target

_SMALL = {
    "gateway.yaml": """\
listen: {data: "127.0.0.1:0", admin: "127.0.0.1:0"}
state: {directory: var}
upstreams:
  default: {base_url: "https://api.example.com", credential: {env: KEY}}
  other: {base_url: "http://127.0.0.1:1", credential: {env: KEY}, header: x-api-key}
store: {kind: memory}
tags: {headers: [x-team]}
drain: {announce: 0s, timeout: 5s}
timeouts: {client_body: 1m}
""",
    "limits.yaml": """\
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $50.00, per: month, comment: test}
  - {id: rate, scope: key, unit: requests, amount: 60, per: minute, burst: 5, comment: test}
overrides:
  - {limit: month, subject: poor, amount: $0.000001, comment: test}
""",
    "workspaces.yaml": """\
workspaces:
  demo: {upstream: default, models: [claude-*]}
  poor: {upstream: other, placement: shadow}
""",
    "prices.yaml": """\
as_of: 2026-11-22
terms:
  - from: 2026-02-05
    batch: 0.5
    inference_geo: {us: 1.1}
    unlisted_fast: 2
    web_search_per_thousand: $10.00
    billed_refusals: []
    source: test
tokenizers: {newer: 2.8, older: 3.6}
unknown_model: {tokenizer: newer, minimum_cacheable_tokens: 1024, input: $15.00, output: $75.00,
  cache_write_5m: $18.75, cache_write_1h: $30.00, cache_read: $1.50}
models:
  claude-x-1:
    tokenizer: newer
    minimum_cacheable_tokens: 512
    prices:
      - {input: $5.00, output: $25.00, cache_write_5m: $6.25, cache_write_1h: $10.00, cache_read: $0.50,
         source: test}
""",
}
_SIGN = b"# file: "


@asynccontextmanager
async def _loading(folder: Path) -> AsyncIterator[Check]:
    written = {name: text.encode() for name, text in _SMALL.items()}
    for name, content in written.items():
        (folder / name).write_bytes(content)
    environ = {"KEY": "sk-test"}
    load_settings(folder, environ)

    async def check(data: bytes) -> None:
        name, content = _named(data)
        (folder / name).write_bytes(content)
        try:
            settings = load_settings(folder, environ)
            build_limits(settings)
            build_schedules(settings)
            declared_keys(settings)
        except ConfigError as error:
            assert error.problems
            assert all(problem.file and problem.message for problem in error.problems)
            assert "Traceback" not in str(error)
        finally:
            (folder / name).write_bytes(written[name])
        line = content.partition(b"\n")[0].decode("utf-8", "replace").replace("\0", "")
        read_environment({"GATEWAY_LIMITS__X": line, f"GATEWAY_{line[:40]}__Y": "1"})

    yield check


def _named(data: bytes) -> tuple[str, bytes]:
    """The file that a first line `# file: limits.yaml` names; gateway.yaml otherwise."""
    first, _, rest = data.partition(b"\n")
    name = first.removeprefix(_SIGN).decode("latin-1")
    return (name, rest) if name in FILE_NAMES else ("gateway.yaml", data)


def files() -> Sequence[bytes]:
    return [_SIGN + name.encode() + b"\n" + text.encode() for name, text in _SMALL.items()]


_WORDS = (
    b"\n", b"  ", b": ", b"- ", b"&a ", b"*a", b"<<: *a", b"!!python/object:os.system ", b"!!binary ",
    b"!x ", b"|\n", b">-\n", b"? ", b"---\n", b"...\n", b"%YAML 1.1\n", b"{", b"}", b"[", b"]", b"# ", b"'",
    b"$1e99", b"$-1.00", b"1e9s", b"99999999999h", b"12:30:45", b"0o17", b"2026-02-30", b".inf", b".nan",
    b"~", b"yes", b"file: /etc/passwd", b"env: KEY", b"file: /proc/self/environ", b"http://169.254.169.254/",
    b"limits:", b"warming:", b"schedules:", b"identity:", b"*/5 * * * *", b"\xc2\x85", b"\xe2\x80\xa8",
    b"\t",
)  # fmt: skip

TARGETS = (Target(name="config", open=_loading, seeds=files, words=_WORDS, rounds=12),)
