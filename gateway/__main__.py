"""`python -m gateway`, and the `gateway` command. Commands are loaded when one is asked that needs them."""

from __future__ import annotations

import os
import sys

from gateway.liveness import at_once


def main() -> None:
    """The `gateway` command."""
    answer = at_once(sys.argv[1:], os.environ)
    if answer is None:
        from gateway.cli import main as command

        return command()
    alive, sentence = answer
    print(sentence, file=sys.stdout if alive else sys.stderr)
    sys.exit(0 if alive else 1)


if __name__ == "__main__":
    main()
