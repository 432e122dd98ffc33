"""The bound on what planning may lose, kept by accounts and not by hope.

Per workspace: what its input would have cost without caching, what it did cost, and what is at stake in
requests that were sent and have not been billed. All in token equivalents.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Account:
    """One workspace's books. Never loses more than `opening + share * plain`."""

    plain: float = 0.0
    """Cost of all input so far without caching."""
    saved: float = 0.0
    """`plain` less what was billed, warm-ups included; negative while in loss."""
    at_stake: float = 0.0
    """Premiums of writes that were sent and not yet billed."""

    def may_stake(self, premium: float, *, opening: float, share: float) -> bool:
        """Whether the bound would still hold if `premium` were lost."""
        return self.saved - self.at_stake - premium >= -(opening + share * self.plain)

    def stake(self, premium: float) -> None:
        """`premium` may be lost by a request that is being sent."""
        self.at_stake += premium

    def settle(self, premium: float, *, plain: float, cost: float) -> None:
        """The stake is closed: a prompt of `plain` was billed as `cost`. For a failed request both are 0."""
        self.at_stake = max(0.0, self.at_stake - premium)
        self.plain += plain
        self.saved += plain - cost
