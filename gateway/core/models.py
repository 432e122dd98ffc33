"""What is known of each model, apart from its price: dated configuration, read from `config/prices.yaml`.

Names are resolved here, once for facts and prices alike. Prices are in `pricing.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

MAX_REMEMBERED_NAMES = 4096
_MAX_NAME_CHARS = 200
_GLOB = re.compile(r"[*?\[]")
# How clouds and snapshots spell a model: `us.anthropic.claude-x-20250101-v1:0`, `claude-x@20250101`.
_SPELLING = re.compile(
    r"(?:[a-z0-9-]+\.)?(?:anthropic[./])?(claude-[a-z0-9-]*?[a-z0-9])(?:[-@]\d{8})?(?:-v\d+(?::\d+)?)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Facts that placement and estimates need. Token counts made from bytes are estimates, per family."""

    id: str
    minimum_cacheable_tokens: int
    bytes_per_token: float
    """Typical UTF-8 bytes of English and JSON per token, for this model's tokenizer family."""
    context_tokens: int = 1_000_000
    max_output_tokens: int = 128_000
    output_tokens_per_second: float = 100.0
    """What an answer that was cut is presumed to have had written, where nobody saw it."""
    known: bool = True
    """False for a model that no row names: then these are the stated fallback facts."""


class ModelNames:
    """Which known model a name means: its id, an alias, the spelling of a cloud or of a dated snapshot.

    In this order: the exact id or alias; the name without a cloud's prefix, snapshot date and version; globs
    among the aliases. `aliases` maps each id to its other names.
    """

    __slots__ = ("_exact", "_globs", "_remembered")

    def __init__(self, aliases: Mapping[str, Sequence[str]]) -> None:
        self._exact = {model: model for model in aliases}
        self._globs: list[tuple[str, str]] = []
        for model, names in aliases.items():
            for name in names:
                if _GLOB.search(name):
                    self._globs.append((name, model))
                elif self._exact.setdefault(name, model) != model:
                    raise ValueError(
                        f"{name!r} is a name of {self._exact[name]} and of {model}; drop one of them"
                    )
        self._remembered: dict[str, str | None] = {}

    def resolve(self, name: str) -> str | None:
        """The id of the known model, or None."""
        found = self._exact.get(name)
        if found is not None or len(name) > _MAX_NAME_CHARS:
            return found
        try:
            return self._remembered[name]
        except KeyError:
            pass
        if len(self._remembered) >= MAX_REMEMBERED_NAMES:  # names are the clients': bounded
            self._remembered.clear()
        found = self._remembered[name] = self._search(name)
        return found

    def _search(self, name: str) -> str | None:
        spelled = _SPELLING.fullmatch(name)
        if spelled is not None and (found := self._exact.get(spelled[1])) is not None:
            return found
        return next((model for glob, model in self._globs if fnmatchcase(name, glob)), None)


class ModelTable:
    """Facts of every known model, and the stated ones for any other."""

    __slots__ = ("_facts", "_fallback", "_names")

    def __init__(self, facts: Iterable[ModelFacts], *, fallback: ModelFacts, names: ModelNames) -> None:
        self._facts = {row.id: row for row in facts}
        self._fallback = fallback
        self._names = names

    def facts(self, model: str) -> ModelFacts:
        """What is known of the model; for a model that no row names the fallback facts, `known` False."""
        known = self._names.resolve(model)
        return self._fallback if known is None else self._facts.get(known, self._fallback)

    def canonical(self, model: str) -> str | None:
        """The known model's id, from a closed set that is fit for a metric's label; else None."""
        known = self._names.resolve(model)
        return known if known in self._facts else None

    def known(self) -> tuple[ModelFacts, ...]:
        """All rows, in the order of the file."""
        return tuple(self._facts.values())
