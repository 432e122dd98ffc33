"""What is known of each model, apart from its price: dated configuration, read from `config/prices.yaml`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Facts that placement and estimates need. Token counts made from bytes are estimates, per family."""

    id: str
    minimum_cacheable_tokens: int
    bytes_per_token: float
    """Typical UTF-8 bytes of English and JSON per token, for this model's tokenizer family."""
    known: bool = True
    """False for a model that no row names: then these are the stated fallback facts."""
