"""The `alerts` section of gateway.yaml: what people are told, and where. What becomes of it is
`gateway/alerting.py`'s.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from gateway.core.alerts import AlertKind, Format
from gateway.settings.limits import Contact, Share
from gateway.settings.shared import Name, SecretRef, Section
from gateway.settings.units import Usd


class AlertTarget(Section):
    """Somewhere that alerts go. It gets those that pass all of its filters; an empty one lets all pass."""

    format: Format = Format.WEBHOOK
    """`slack`: an incoming webhook of Slack, Mattermost or others alike. `webhook`: signed JSON, see
    docs/alerts.md."""
    url: SecretRef
    """Where its URL is found, which is a credential: https, or http on this machine."""
    secret: SecretRef | None = None
    """Where the secret is found that a `webhook`'s requests are signed with; needed there."""
    private: bool = False
    """Whether it may be in a private network. Metadata services of clouds are never asked."""
    kinds: tuple[AlertKind, ...] = ()
    """Some of `threshold`, `forecast`, `anomaly`, `cache`, `freeze`, `unfreeze`, `test`."""
    organisations: tuple[Name, ...] = ()
    """Only what concerns these."""
    teams: tuple[Name, ...] = ()
    """Only what concerns these."""
    workspaces: tuple[Name, ...] = ()
    """Only what concerns these."""
    contacts: tuple[Contact, ...] = ()
    """Only what concerns limits with these in limits.yaml's `contact`."""

    @model_validator(mode="after")
    def _signed_where_it_can_be(self) -> Self:
        if (self.format is Format.WEBHOOK) != (self.secret is not None):
            raise ValueError("a webhook needs a `secret` to sign with; slack has none, as its URL is one")
        return self


class Anomalies(Section):
    """A workspace that spends far more in an hour than in the same hour of the last eight weeks."""

    enabled: bool = True
    """Off: nobody is told."""
    deviations: Annotated[float, Field(ge=2, le=100)] = 6.0
    """How many deviations above the median (from the median of distances) are too far."""
    floor: Usd = 10_000_000_000
    """Dollars above the median below which nobody is told, as $10.00."""


class CacheFalls(Section):
    """A workspace whose prompts are read from the cache far less than in the seven days before."""

    enabled: bool = True
    """Off: nobody is told."""
    fall: Share = 0.25
    """By how much the share of prompt tokens that are read has to fall, as 0.25 for 80% to 55%."""
    floor: Usd = 2_000_000_000
    """What that has to cost within an hour or two before anybody is told, as $2.00."""


class Alerts(Section):
    """What people are told: each thing once, over all replicas. Nothing where there are no targets."""

    targets: Annotated[dict[Name, AlertTarget], Field(max_length=100)] = Field(default_factory=dict)
    """By name."""
    thresholds: Annotated[tuple[Share, ...], Field(max_length=20)] = (0.5, 0.8, 1.0)
    """Shares of each limit of dollars by day, week or month that has no `warn_at` of its own."""
    forecast: bool = True
    """Whether to tell of budgets by week or month that will not last, at the pace so far."""
    freezes: bool = True
    """Whether to tell who was frozen and unfrozen, by whom and why."""
    anomalies: Anomalies = Anomalies()
    cache: CacheFalls = CacheFalls()
