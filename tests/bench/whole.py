"""The whole gateway for the bench, everything on: keys, placement, budgets, metrics, ledger, access log.

    python -m tests.bench.whole PORT UPSTREAM [--store sqlite|memory | --redis URL] [--without PART ...]

Replaces itself by `gateway run` on a configuration of its own; `--without` switches parts off, so that each
one's price can be seen. `KEY` is the virtual key that the load generator sends.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from gateway.core.ids import WorkspaceId
from gateway.core.principal import RANDOM_BYTES, mint_key
from gateway.settings import packaged_directory
from tests.bench.without import OBSERVERS

KEY, _RECORD = mint_key(
    random_bytes=bytes(RANDOM_BYTES), name="bench", workspace=WorkspaceId("bench"), created_at=0.0
)
PARTS = ("placement", "limits", "log", "ledger", "metrics")
LIMITS = """\
defaults:
  - {id: org-month, scope: organisation, unit: usd, amount: $9000000, per: month, comment: bench}
  - {id: month, scope: workspace, unit: usd, amount: $9000000, per: month, comment: bench}
  - {id: requests, scope: key, unit: requests, amount: 900M, per: minute, comment: bench}
  - {id: output, scope: key, unit: output_tokens, amount: 900000M, per: minute, comment: bench}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("upstream")
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--redis", help="URL of a server, which then is the store")
    parser.add_argument("--without", action="append", default=[], choices=PARTS)
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
    config = home / "config"
    config.mkdir()
    store = given.store if given.redis is None else "redis"
    placement = "off" if "placement" in given.without else "on"
    (config / "gateway.yaml").write_text(
        f"""\
listen: {{data: "127.0.0.1:{given.port}", admin: "127.0.0.1:0"}}
state: {{directory: "{home / "state"}"}}
store: {{kind: {store}}}
upstreams: {{default: {{base_url: "{given.upstream}", credential: {{env: UPSTREAM_KEY}}}}}}
placement: {{mode: {placement}}}
capacity: {{exchanges: 20000}}
"""
    )
    key = f'{{id: "{_RECORD.id}", name: bench, digest: "sha256:{_RECORD.digest.hex()}"}}'
    (config / "workspaces.yaml").write_text(
        f"workspaces: {{bench: {{upstream: default, client_marks: complete, keys: [{key}]}}}}\n"
    )
    (config / "limits.yaml").write_text("{}\n" if "limits" in given.without else LIMITS)
    (config / "prices.yaml").write_bytes((packaged_directory() / "prices.yaml").read_bytes())
    environ = {**os.environ, "UPSTREAM_KEY": "sk-test-bench", "REDIS_URL": given.redis or ""}
    os.dup2(os.open(home / "access.log", os.O_WRONLY | os.O_CREAT), 1)
    command = ["gateway", "run", "--config", str(config)]
    if silent := [part for part in given.without if part in OBSERVERS]:
        command = ["tests.bench.without", ",".join(silent), str(config)]
    os.execve(sys.executable, [sys.executable, "-m", *command], environ)


if __name__ == "__main__":
    main()
