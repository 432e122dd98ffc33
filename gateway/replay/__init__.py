"""What caching would have cost on recorded traffic, by policy: `gateway replay`.

Recordings are read (`trace.py`), every contestant decides on them in virtual time (`contestants.py`,
`run.py`), and the simulator's own cache and prices judge what each pays (`upstream.py`, `tariffs.py`).
Nothing that serves requests imports this package.
"""
