"""What all models of the configuration have in common: they are frozen, and refuse keys they do not know."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_serializer,
    model_validator,
)


class Section(BaseModel):
    """A mapping in a configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SecretRef(Section):
    """Where a secret is found: the secret itself is never written into a file that people edit."""

    env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable that holds it."""
    file: Annotated[str, Field(min_length=1)] | None = None
    """File that holds it; read again whenever it changes."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("write either `env: NAME` or `file: PATH`")
        return self

    @model_serializer
    def _as_written(self) -> dict[str, str]:
        return {"env": self.env} if self.env else {"file": self.file or ""}

    def __str__(self) -> str:
        return f"env {self.env}" if self.env else f"file {self.file}"


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""A name that ends up in labels, keys and reports."""


def _own_header(name: str) -> str:
    # It is kept or taken out here, so it must be neither a credential nor a header that the API needs.
    if not name.startswith("x-") or name == "x-api-key":
        raise ValueError("must be a header of your own, beginning with x-")
    return name


OwnHeader = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$", max_length=64, to_lower=True),
    AfterValidator(_own_header),
]
"""Name of a header that means something to this gateway only; in lower case."""
