"""One of several processes that serve as one gateway on one machine: which it is, and where it meets others.
Pure: who starts them is `gateway/supervisor.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_WORKERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Its place among `count` workers, which share the state directory and the data plane's address."""

    number: int
    """From 0 to `count` - 1; a worker that is replaced has the number of the one that died."""
    count: int
    folder: str
    """Of this start of the gateway, and for its user only: the sockets of its processes are in it."""
    listening: int
    """Descriptor of the listening socket that all workers share."""

    @property
    def is_first(self) -> bool:
        """Whether it does what one of them does for all."""
        return self.number == 0

    @property
    def admin_socket(self) -> str:
        """Where its admin plane listens."""
        return admin_socket(self.folder, self.number)

    @property
    def hub_socket(self) -> str:
        """Where workers hear of each other."""
        return hub_socket(self.folder)

    @property
    def live_socket(self) -> str:
        """Where it tells the others which calls it has."""
        return _live_socket(self.folder, self.number)

    @property
    def other_live_sockets(self) -> tuple[str, ...]:
        """Where the others do."""
        return tuple(_live_socket(self.folder, each) for each in range(self.count) if each != self.number)

    def own_name(self, name: str) -> str:
        """The name of a file that each worker needs one of: its first keeps the name."""
        return name if self.is_first else f"{name}.{self.number}"


def admin_socket(folder: str, number: int) -> str:
    """Where the admin plane of that worker listens."""
    return f"{folder}/admin.{number}"


def hub_socket(folder: str) -> str:
    """Where workers hear of each other."""
    return f"{folder}/hub"


def _live_socket(folder: str, number: int) -> str:
    return f"{folder}/live.{number}"
