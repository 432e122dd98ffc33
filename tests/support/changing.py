"""Asks `Changes` about bodies, with a stand-in for the planner that knows every prefix it saw."""

from __future__ import annotations

from typing import Any

from gateway.core.changes import Changes
from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.misses import Miss
from gateway.core.prefix import cache_scope, prefix_keys
from gateway.core.prompt_reader import read_prompt
from gateway.core.typical import block_tokens
from tests.support.bodies import dump
from tests.support.prices import model_table

Headers = tuple[tuple[bytes, bytes], ...]


class Looker:
    def __init__(self, **options: Any) -> None:
        self.changes = Changes(b"a secret of the tests", **options)
        self.known: set[PrefixKey] = set()
        self.now = 1.8e9

    def ask(
        self,
        body: dict[str, Any] | bytes,
        *,
        seconds: float = 10.0,
        workspace: str = "demo",
        beta: str = "",
        minimum_tokens: int = 0,
    ) -> Miss | None:
        """What is said of the call, which reads all that is known of it."""
        self.now += seconds
        prompt = read_prompt(body if isinstance(body, bytes) else dump(body))
        name = WorkspaceId(workspace)
        headers: Headers = ((b"anthropic-beta", beta.encode()),) if beta else ()
        scope = cache_scope(secret=b"another", workspace=name, prompt=prompt, headers=headers)
        keys = prefix_keys(prompt, scope)
        known_to = max((at for at, key in enumerate(keys) if key in self.known), default=-1)
        self.known.update(keys)
        return self.changes.look(
            prompt,
            keys,
            block_tokens(prompt, model_table().facts(prompt.model)),
            workspace=name,
            headers=headers,
            read_at=known_to,
            known_to=known_to,
            now=self.now,
            minimum_tokens=minimum_tokens,
        )
