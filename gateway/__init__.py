"""A gateway between an organisation's apps and the Claude API."""

__version__ = "0.1.0"
