"""The two answers that the gateway does change, because its clients must stay inside it: the list of
models (to those the workspace may use) and a batch's `results_url` (back to the gateway).

SDKs follow `results_url` as given, with the client's key, to whatever host it names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable


def filter_models(body: bytes, allowed: Callable[[str], bool]) -> bytes:
    """The models list without what `allowed` denies, in the API's own shape. A body that is not such a list
    comes back as it was."""
    try:
        page = json.loads(body)
        models = page["data"]
        kept = [model for model in models if allowed(model["id"])]
    except (ValueError, TypeError, KeyError):
        return body
    if len(kept) == len(models):
        return body
    page["data"] = kept
    # The cursors stay upstream's: paging goes by them, and a filtered id would end it early.
    return json.dumps(page, ensure_ascii=False, separators=(",", ":")).encode()


def point_results_home(body: bytes, upstream_base: str, public_base: str) -> bytes:
    """Every `results_url` under `upstream_base` (scheme, host, port, prefix) put under `public_base`."""
    pattern = rb'("results_url"\s*:\s*")' + re.escape(upstream_base.encode()) + rb"(?=/)"
    return re.sub(pattern, lambda match: match[1] + public_base.encode(), body)
