"""What the access log hands to its descriptor at once: whole lines, few enough to stay whole in a pipe that
other processes write to, too."""

from __future__ import annotations

import json
import select
import socket

from gateway.adapters.access_log import AccessLog
from tests.support.records import a_record


def test_every_write_is_of_whole_lines_that_say_which_worker_wrote_them() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps writes apart
    with ours, theirs:
        theirs.settimeout(10)
        log = AccessLog(ours.fileno(), human=False, worker=3)
        for _ in range(60):
            log.observe(a_record())
        lines: list[bytes] = []
        while len(lines) < 60:
            written = theirs.recv(1 << 20)
            assert written.endswith(b"\n")
            assert len(written) <= select.PIPE_BUF
            lines += written.splitlines()
        assert log.close() == 0

    assert {json.loads(line)["worker"] for line in lines} == {3}
