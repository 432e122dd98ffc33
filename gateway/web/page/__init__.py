"""The page: what people see of the gateway in a browser, on the admin plane under /page.

Rendered on the server by Jinja2, escaped by default, with a strict content security policy: no inline script
or style, nothing from other hosts. It works without JavaScript. Nothing here knows a store, the ledger or
settings: each screen is told everything through callables, which `gateway/page.py` puts together.

To add a screen:

1. A module of its own here with a function that takes its sources and gives `Screen`s:

       def spend_screens(source: Callable[..., Awaitable[...]]) -> list[Screen]:
           async def show(request: web.Request) -> web.StreamResponse:
               table = Table(caption="Spend by workspace", columns=(Column("workspace", "Workspace"), ...),
                             rows=[(link("demo", "/page/..."), money(1_000_000)), ...])
               return await render(request, "spend.html", tables=[table], total=...)
           return [Screen(path="/spend", title="Spend", respond=show)]

   Paths are below /page. A screen with a title is in the navigation; `Screen(method="POST")` is for editors,
   and its form needs `{{ form_token }}` inside. `visit_of(request)` says who is asking.
2. Filters are read from `request.query`, so that each view has a URL; what cannot be understood is an
   `AdminError(400, sentence)`, which is shown as a page, as is any `AdminError`.
3. A template that extends `base.html` and fills the block `main`; `{% import "parts.html" as parts %}` has
   the macros: `parts.table(tables["name"])` draws a `Table` with links that sort, page and export it,
   `parts.figure`, `parts.meter`, `parts.choice`, `parts.field`. `render` adds `nav`, `visit`, `as_of`,
   `form_token`, and the filters of `showing.py`: `|usd`, `|percent`, `|count`, `|seconds`, `|when`.
4. `render` answers `?format=csv` (with `&table=name` where there are several) by the table as CSV.
5. Styles are in static/page.css; colours are its variables, which have a light and a dark value. A chart is
   SVG in the template: attributes such as `width` are allowed by the policy, `style` is not.
6. Add the screens to `gateway/page.py`.
"""
