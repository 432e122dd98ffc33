"""How a gateway that runs with a simulated API behind it (`gateway run --demo`) is known to `gateway doctor`.

Its upstream, credential and state directory are in no configuration: it sets them for itself. While it runs
they stand in a file, so that the doctor looks at that gateway, and not for a credential that it needs not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

CREDENTIAL_VARIABLE = "ANTHROPIC_API_KEY"
UPSTREAM_VARIABLE = "GATEWAY_UPSTREAMS__DEFAULT__BASE_URL"
STATE_VARIABLE = "GATEWAY_STATE__DIRECTORY"
SIMULATED = "simulated"
"""Folder of the state directory in which it keeps its own."""
_MARK = "demo.json"


def simulated_state(environ: Mapping[str, str]) -> Path:
    """What is spent on the simulator must not count against anybody's real budget."""
    return Path(environ.get(STATE_VARIABLE, "var")) / SIMULATED


@contextmanager
def marked(environ: Mapping[str, str]) -> Iterator[None]:
    """While this lasts a gateway runs here, by these variables. Only once it listens: of two that are started
    by mistake, the one that may not must not take the other's mark."""
    path = Path(environ[STATE_VARIABLE]) / _MARK
    own = {name: environ[name] for name in (CREDENTIAL_VARIABLE, UPSTREAM_VARIABLE, STATE_VARIABLE)}
    with suppress(OSError):  # as on a full disk, on which it serves all the same
        path.write_text(json.dumps({"process": os.getpid(), "variables": own}), encoding="utf-8")
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def variables_of_demo(environ: Mapping[str, str]) -> dict[str, str]:
    """What the demo that runs here has set for itself; nothing where none does, or where the environment has
    a credential, so that another gateway is meant."""
    if environ.get(CREDENTIAL_VARIABLE):
        return {}
    own = simulated_state(environ)
    for path in (own / _MARK, own.parent / _MARK):  # the second: its state directory is in the environment
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(path.read_bytes())
            os.kill(int(found["process"]), 0)
            return {str(name): str(value) for name, value in found["variables"].items()}
    return {}
