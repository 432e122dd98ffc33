"""The page as an application, to be mounted under /page of the admin plane."""

from __future__ import annotations

from aiohttp import web

from gateway.web.page.guard import Access, errors_as_pages, known, redirect
from gateway.web.page.rendering import PAGE, PREFIX, Page, static_file
from gateway.web.page.session import Sessions


def page_app(
    page: Page, sessions: Sessions, *, loopback: bool, signing_in: bool, public_url: str | None
) -> web.Application:
    """Its screens, behind the guard."""
    access = Access(
        signing_in=signing_in,
        loopback=loopback,
        public_url=public_url,
        open_paths=frozenset(PREFIX + screen.path for screen in page.screens if screen.open),
    )
    app = web.Application(middlewares=[errors_as_pages(), known(access, sessions)])
    app[PAGE] = page
    first = next(screen.path for screen in page.screens if screen.title)

    async def start(request: web.Request) -> web.StreamResponse:
        return redirect(PREFIX + first)

    app.router.add_get("", start)
    app.router.add_get("/", start)
    app.router.add_get("/static/{name}", static_file)
    for screen in page.screens:
        app.router.add_route(screen.method, screen.path, screen.respond)
    return app
