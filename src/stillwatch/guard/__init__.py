"""The inline side: a snapshot of what a scan found, and one decision per request. No graph, no network, no engine.

guard = Guard(load(path, read_secret()))
guard.warm()
decision = guard.decide(Subject(account="...", prompt="...", ip="..."))
"""

from __future__ import annotations

from stillwatch.guard.lean import load_numba

load_numba()

from stillwatch.guard.decide import Guard  # noqa: E402
from stillwatch.guard.policy import ACTIONS, Action, Policy, parse_policy, read_policy  # noqa: E402
from stillwatch.guard.secret import Secret, read_secret  # noqa: E402
from stillwatch.guard.snapshot import Snapshot, load  # noqa: E402
from stillwatch.guard.subject import Decision, Subject  # noqa: E402

__all__ = [
    "ACTIONS",
    "Action",
    "Decision",
    "Guard",
    "Policy",
    "Secret",
    "Snapshot",
    "Subject",
    "load",
    "parse_policy",
    "read_policy",
    "read_secret",
]
