"""What would end a start, said beforehand: addresses that meet, secrets that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.settings.conftest import GATEWAY, Directory


@pytest.mark.parametrize(
    ("data", "admin", "same"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", True),
        ("0.0.0.0:8080", "127.0.0.1:8080", True),
        ("[::1]:08080", "[::]:8080", True),
        ("127.0.0.1:8080", "[::]:8080", False),
        ("127.0.0.1:8080", "127.0.0.2:8080", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_the_planes_need_addresses_of_their_own(
    directory: Directory, data: str, admin: str, same: bool
) -> None:
    environ = {"GATEWAY_LISTEN__DATA": data, "GATEWAY_LISTEN__ADMIN": admin}
    if not same:
        directory.load(environ)
        return
    assert directory.lines(environ) == [
        f"environment: GATEWAY_LISTEN__ADMIN: the data plane listens on {data} already; "
        "the two need addresses of their own"
    ]


@pytest.mark.parametrize(
    "setting", ["listen.admin_token", "listen.metrics_token", "prefixes.secret", "ledger.key"]
)
def test_a_secret_without_which_the_gateway_does_not_start_is_warned_of(
    directory: Directory, tmp_path: Path, setting: str
) -> None:
    section, _, name = setting.partition(".")
    for ref in ("{env: NOBODY_SET_THIS}", f"{{file: {tmp_path / 'missing'}}}"):
        directory.write("gateway.yaml", GATEWAY + f"{section}: {{{name}: {ref}}}\n")
        said = [warning for warning in directory.load().warnings if warning.key == setting]
        assert len(said) == 1 and "the gateway will not start without it" in said[0].message

    (tmp_path / "missing").write_text("short")
    endings = [
        warning.message.partition("; ")[2] for warning in directory.load().warnings if warning.key == setting
    ]
    assert endings == ([] if section == "listen" else ["the gateway will not start with it"])
