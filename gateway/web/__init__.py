"""HTTP, in both directions: the data plane on the lower-level server, the admin plane on `aiohttp.web`."""
