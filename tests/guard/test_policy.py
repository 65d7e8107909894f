"""Every way to write a policy wrongly is refused with its line, and so is what no policy may allow."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from stillwatch.guard.policy import SHADOW, parse_policy, read_policy
from stillwatch.schema import PolicyError

KEYS = [f"ed25519:{b64encode(bytes([n]) * 32).decode()}" for n in (1, 2)]
FULL = f"""# who may act
version = 1
mode = "enforce"
on_fault = "closed"
silent_days = 14
found_risk = 1e-4
hold_until_mapped = true

[exempt]
contracts = [
  "evaluation",   # ours
  "gateway",
]
owners = ["Example University"]
gateways = ["reseller-1"]

[[approver]]
name = "first"
key = "{KEYS[0]}"

[[approver]]
name = "second"
key = "{KEYS[1]}"

[[rule]]
name = "free plans"
action = "block"
tiers = ["free"]
min_bits = 8.5
rollout_percent = 10
until = 2026-12-31T00:00:00Z

[[rule]]
name = "others"
action = "throttle"
retry_after_s = 30
scope = "stream"
roles = ["core", "recruit", "found"]

[[rule]]
name = "leads"
verdict = "lead"
action = "observe"
kinds = 0
"""


def test_a_whole_policy_is_read() -> None:
    policy = parse_policy(FULL)
    assert policy.mode == "enforce"
    assert [rule.action for rule in policy.rules] == ["block", "throttle", "observe"]
    assert policy.lines == tuple(n for n, line in enumerate(FULL.splitlines(), 1) if line == "[[rule]]")
    assert policy.exempt.contracts == ("evaluation", "gateway")
    assert policy.approvers[1].raw == bytes([2]) * 32


def test_without_a_word_nothing_acts() -> None:
    assert parse_policy("version = 1").mode == "shadow"
    assert parse_policy(SHADOW).mode == "shadow"


WRONG = {
    "no TOML": ("version = 1\nmode = \n", 2, "no TOML"),
    "version": ("version = 2\n", 1, "Invalid enum value 2"),
    "no version": ('mode = "shadow"\n', None, "missing required field `version`"),
    "unknown field": ('version = 1\n\nmoode = "shadow"\n', 3, "unknown field `moode`"),
    "unknown in rule": ('version = 1\n[[rule]]\nname = "a"\naction = "block"\nban = 1\n', 5, "unknown field `ban`"),
    "action": ('version = 1\n[[rule]]\nname = "a"\n[[rule]]\nname = "b"\naction = "ban"\n', None, "missing required"),
    "bad action": ('version = 1\n[[rule]]\nname = "a"\n\naction = "ban"\n', 5, "Invalid enum value 'ban'"),
    "type": ('version = 1\n[[rule]]\nname = "a"\naction = "block"\nmin_bits = "many"\n', 5, "Expected `float`"),
    "range": ('version = 1\n[[rule]]\nname = "a"\naction = "block"\nrollout_percent = 101\n', 5, "<= 100"),
    "nan": ('version = 1\n[[rule]]\nname = "a"\naction = "block"\nmin_bits = nan\n', 5, "Expected `float`"),
    "lead acts": ('version = 1\n[[rule]]\nname = "a"\naction = "throttle"\nverdict = "lead"\n', 5, "can never act"),
    "cleared": ('version = 1\n[[rule]]\nname = "a"\naction = "block"\nverdict = "cleared"\n', 5, "can never act"),
    "one kind": ('version = 1\n[[rule]]\nname = "a"\naction = "block"\nkinds = 1\n', 5, "single kind"),
    "one view": ('version = 1\n[[rule]]\nname = "a"\naction = "mark"\nevidence = ["FORM"]\n', 5, "single kind"),
    "same view": (
        'version = 1\n[[rule]]\nname = "a"\naction = "mark"\nevidence = ["FORM", "FORM"]\n', 5, "single kind",
    ),
    "alone": ('version = 1\nmode = "enforce"\n[[rule]]\nname = "a"\naction = "block"\n', 5, "needs two people"),
    "names": (
        'version = 1\n[[rule]]\nname = "a"\naction = "allow"\n[[rule]]\nname = "a"\naction = "allow"\n',
        6, "two rules",
    ),
    "key": ('version = 1\n[[approver]]\nname = "a"\nkey = "ed25519:AAAA"\n', 4, "no ed25519 public key"),
    "same key": (
        f'version = 1\n[[approver]]\nname = "a"\nkey = "{KEYS[0]}"\n[[approver]]\nname = "b"\nkey = "{KEYS[0]}"\n',
        7, "two approvers have one key",
    ),
    "zone": ('version = 1\n[[rule]]\nname = "a"\naction = "block"\nuntil = 2026-01-01T00:00:00\n', 5, "time zone"),
    "risk": ("version = 1\nfound_risk = 0.01\n", 2, "<= 0.001"),
    "deep": ("version = 1\na = " + "[" * 5000 + "]" * 5000, None, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    text, line, says = WRONG[name]
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        read_policy(path)
    assert says in str(caught.value)
    assert caught.value.where is not None
    assert caught.value.where.file == "policy.toml"
    if line is not None:
        assert caught.value.where.line == line
        assert f"line {line}" in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(b"version = 1\n# \xff\n")
    with pytest.raises(PolicyError, match="line 2: the policy is not UTF-8"):
        read_policy(path)
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(PolicyError, match="larger than 1 MiB"):
        read_policy(path)
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(tmp_path / "none.toml")
