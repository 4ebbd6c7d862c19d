"""How releases spell the same config: what changed, in both directions.

Every config is read into the spelling of the newest release, whatever the release that wrote it, and written in the
spelling of the release that was asked for. So tables know one spelling only, and any release leads to any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mmconvert.releases import Release
from mmconvert.spec import Config


@dataclass(frozen=True)
class Change:
    """Something that configs spell otherwise since a release.

    `newer` gives a config in the spelling since then, `older` in the one before; both leave alone what they do not
    concern, so that `newer` after `older` gives back what there was. `what` says it in words.
    """

    since: Release
    what: str
    newer: Callable[[Config], Config]
    older: Callable[[Config], Config]


def read(changes: Iterable[Change], config: Config) -> dict[str, Any]:
    """A config of any release in the newest spelling."""
    for change in sorted(changes, key=lambda change: change.since):
        config = change.newer(config)
    return dict(config)


def write(changes: Iterable[Change], config: Config, release: Release) -> dict[str, Any]:
    """A config in the newest spelling as the release spells it."""
    for change in sorted(changes, key=lambda change: change.since, reverse=True):
        if release < change.since:
            config = change.older(config)
    return dict(config)


def releases(changes: Iterable[Change], config: Config, known: Iterable[Release]) -> tuple[list[Release], list[str]]:
    """Which of the known releases may have spelled a config as it is, and what in it says so."""
    candidates, reasons = list(known), []
    for change in changes:
        is_older, is_newer = change.newer(config) != config, change.older(config) != config
        if is_older != is_newer:
            candidates = [release for release in candidates if (release < change.since) == is_older]
            reasons.append(f"{'before' if is_older else 'since'} {change.since} {change.what}")
    return candidates, reasons
