"""What a fuzz target is, and where its inputs are kept. The targets are modules of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz.mutate import mutant

CORPUS = Path(__file__).parent / "corpus"
"""A folder for each target. A file that begins with `found-` once broke something; all are replayed."""

Check = Callable[[bytes], Awaitable[None]]
"""Fails, in whatever way, where an input breaks what is promised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that reads what strangers send."""

    name: str
    open: Callable[[Path], AbstractAsyncContextManager[Check]]
    """Given a folder for scratch."""
    seeds: Callable[[], Sequence[bytes]] = tuple
    """Good inputs beside those in the corpus."""
    words: tuple[bytes, ...] = ()
    rounds: int = 200
    """Mutants that an ordinary run of the tests tries."""


def pure(check: Callable[[bytes], None]) -> Callable[[Path], AbstractAsyncContextManager[Check]]:
    """For targets that need nothing around them."""

    @asynccontextmanager
    async def open_(folder: Path) -> AsyncIterator[Check]:
        async def checked(data: bytes) -> None:
            check(data)

        yield checked

    return open_


def corpus_of(target: Target) -> list[bytes]:
    """The target's seeds and files, in an order that does not change."""
    files = sorted((CORPUS / target.name).glob("*"))
    return [*target.seeds(), *(path.read_bytes() for path in files)]


class Mutants:
    """Endless inputs for a target; the same seed gives the same."""

    def __init__(self, target: Target, seed: int) -> None:
        self._random = Random(seed)
        self._corpus = corpus_of(target)
        self._words = target.words

    def __iter__(self) -> Mutants:
        return self

    def __next__(self) -> bytes:
        # Short inputs are tried more often: they are quicker, and what breaks them is plainer.
        seed = min(self._random.sample(self._corpus, min(2, len(self._corpus))), key=len)
        if self._random.random() < 0.3:
            seed = self._random.choice(self._corpus)
        return mutant(self._random, seed, self._corpus, self._words)
