"""What an operator may set about consumer groups, and the bounds of what a client may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Limits and paces of the group coordinator.

    A member is pinged `pings_per_timeout` times per session timeout. A target is written `target_delay_seconds` after
    the first change that asks for one, and no sooner than `target_interval_seconds` after the group's last one, so that
    a burst of joins costs few rounds of reassignment. A session that has not joined within `join_timeout_seconds` is
    closed. A join that names a topic not known here is refused only after `topic_wait_seconds`, since a topic that was
    created a moment ago on another node may not have arrived yet.
    """

    session_timeout_default_seconds: float = 30.0
    session_timeout_min_seconds: float = 1.0
    session_timeout_max_seconds: float = 1800.0
    pings_per_timeout: int = 5
    join_timeout_seconds: float = 30.0
    topic_wait_seconds: float = 1.0
    target_delay_seconds: float = 0.05
    target_interval_seconds: float = 0.5
    members_max: int = 1000
    topics_max: int = 1000
    client_id_characters_max: int = 249
    commit_partitions_max: int = 10_000
    metadata_size_bytes_max: int = 4096

    def __post_init__(self) -> None:
        shortest, longest = self.session_timeout_min_seconds, self.session_timeout_max_seconds
        assert 0 < shortest <= self.session_timeout_default_seconds <= longest, "the default timeout is out of bounds"
        assert self.pings_per_timeout >= 2, "one lost ping must not end a session"
        assert self.target_delay_seconds <= self.target_interval_seconds, "a delay beyond the interval has no effect"
