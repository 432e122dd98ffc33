from __future__ import annotations

from gateway.core.rules import Route


def test_a_route_never_shows_its_credential() -> None:
    route = Route(
        name="default",
        base_url="https://upstream.example",
        credential=lambda: [(b"authorization", b"Bearer sk-test-hidden")],
    )

    assert "hidden" not in repr(route)
    assert "credential" not in repr(route)
