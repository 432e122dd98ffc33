"""The two answers that the gateway does change, because its clients must stay inside it: the list of
models (to those the workspace may use) and a batch's `results_url` (back to the gateway).

SDKs follow `results_url` as given, with the client's key, to whatever host it names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode

MODELS_PATH = "/v1/models"
MAX_MODELS = 1000
"""On a page of the list (Models API reference, 2026-08-21); 20 where the client does not say."""
_PAGING = frozenset({"limit", "after_id", "before_id"})


def whole_list(target: str) -> str:
    """The target that asks for all models on one page, in place of one that asks for some of them: on a page
    of upstream's there may be no model that the workspace may use, and clients stop at an empty one. What is
    no such list comes back as it was, and so does one that upstream refuses."""
    path, _, query = target.partition("?")
    asked = parse_qsl(query, keep_blank_values=True)
    if path != MODELS_PATH or not 1 <= _limit(dict(asked)) <= MAX_MODELS:
        return target
    kept = [(name, value) for name, value in asked if name not in _PAGING]
    return f"{path}?{urlencode([*kept, ('limit', str(MAX_MODELS))])}"


def models_page(body: bytes, target: str, allowed: Callable[[str], bool]) -> bytes:
    """The page that `target` asks for of the answer to `whole_list`, of models that are `allowed` alone, in
    the API's own shape. A body that is no such list comes back as it was."""
    asked = dict(parse_qsl(target.partition("?")[2]))
    after, before, limit = asked.get("after_id"), asked.get("before_id"), _limit(asked)
    try:
        page = json.loads(body)
        models = page["data"]
        places = {model["id"]: at for at, model in enumerate(models)}
        first = places.get(after, len(models)) + 1 if after else 0
        last = places.get(before, 0) if before else len(models)
        kept = [model for model in models[first:last] if allowed(model["id"])]
    except (ValueError, TypeError, KeyError):
        return body
    shown = kept[-limit:] if before and not after else kept[:limit]
    page["data"] = shown
    page["has_more"] = len(shown) < len(kept)
    page["first_id"], page["last_id"] = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return json.dumps(page, ensure_ascii=False, separators=(",", ":")).encode()


def point_results_home(body: bytes, public_base: str) -> bytes:
    """Every `results_url` put under `public_base`, whatever host upstream names: it may be reached through
    another one than the one that it knows itself by."""
    return _RESULTS_URL.sub(lambda found: found[1] + public_base.encode() + found[2], body)


_RESULTS_URL = re.compile(rb'("results_url"\s*:\s*")[^"\\]*?(/v1/messages/batches/[^"\\]*")')


def _limit(asked: dict[str, str]) -> int:
    text = asked.get("limit", "20")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
