"""All fuzz targets."""

from __future__ import annotations

from tests.fuzz import admin, answers, bodies, config, heads, lines, plans, texts

TARGETS = (
    *bodies.TARGETS,
    *plans.TARGETS,
    *answers.TARGETS,
    *heads.TARGETS,
    *texts.TARGETS,
    *lines.TARGETS,
    *config.TARGETS,
    *admin.TARGETS,
)
