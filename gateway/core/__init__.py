"""Decisions. No IO, no clock, no randomness lives here: instants and ids come in as arguments,
reasons go out as values. Adapters, web and workers are where effects live."""
