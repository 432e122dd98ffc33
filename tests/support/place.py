"""Where a store's contents are: each view of it is opened as another process would, and all are closed at the
end. For suites that run over every adapter of a port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar


class Closing(Protocol):
    async def close(self) -> None: ...


Store = TypeVar("Store", bound=Closing)


class Place(Generic[Store]):
    """`open` is another process's view of the same contents."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self._opened: list[Store] = []

    def open(self) -> Store:
        self._opened.append(self._make())
        return self._opened[-1]

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


@asynccontextmanager
async def a_place(make: Callable[[], Store]) -> AsyncIterator[Place[Store]]:
    place = Place(make)
    yield place
    await place.close()
