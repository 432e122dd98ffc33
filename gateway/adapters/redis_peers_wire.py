"""What replicas write into Redis for each other, as all versions of the gateway must read it.

The keys, the entries of the stream, the scripts, and the times that have to fit together. Who writes is in
`redis_peers_talk.py`, who reads in `redis_peers_hear.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from gateway.adapters.redis_scripts import Script

BEAT_SECONDS: Final = 0.5
"""Between two signs of life of a replica."""
GONE_AFTER_BEATS: Final = 4
"""A replica from which nothing came during so many beats of another is dead to that one."""
SILENT_MS: Final = 1_750
"""Claims of a replica whose last beat is older are void: before it is gone, so that whoever is let go of
then can claim what it held."""
FORGOTTEN_MS: Final = 2 * 3_600_000
"""After so long a dead replica's last beat is deleted. No claim stands longer, or it would count again."""

GATHER_SECONDS: Final = 0.05
"""News that follow other news wait so long for more, and so does who reads them: a busy replica writes and
reads twenty times a second and not a thousand. Claims do not wait, nor does what others wait for."""

ENTRY_BYTES: Final = 64 << 10
"""The most news in one entry. A single piece of news may not be larger: that is a prompt of 4,000 blocks."""
STREAM_ENTRIES: Final = 1_024
"""The stream keeps about so many: 64 MiB at the very most, some 2 MiB where calls come one by one."""
STREAM_LIFE_MS: Final = 3_600_000
"""A stream to which nobody adds is deleted after so long."""

_LUA: Final = Path(__file__).parent / "lua"
_CLOCK: Final = (_LUA / "clock.lua").read_text()
TALK: Final = Script(_CLOCK + (_LUA / "peers_talk.lua").read_text())
BEAT: Final = Script(_CLOCK + (_LUA / "peers_beat.lua").read_text())


@dataclass(frozen=True, slots=True)
class PeerKeys:
    """All bear the store's hash tag."""

    prefix: str

    @property
    def stream(self) -> str:
        return f"{{{self.prefix}}}:news"

    @property
    def beats(self) -> str:
        return f"{{{self.prefix}}}:beats"

    def claim(self, name: bytes) -> str:
        return f"{{{self.prefix}}}:claim:{name.hex()}"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One entry of the stream. A field is only ever added at the end, with a default."""

    replica: str
    number: int
    """Counts the replica's entries: one that is written twice is heard once, and a gap is noticed."""
    news: list[bytes]
    """None: good-bye."""


encode_entry = msgspec.msgpack.Encoder().encode
_DECODER: Final = msgspec.msgpack.Decoder(Entry)


def decode_entry(data: bytes) -> Entry:
    """Raises ValueError for what is no entry."""
    return _DECODER.decode(data)
