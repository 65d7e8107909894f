"""From a proposal to an order that is enforced, and back, by the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stillwatch.cli import main
from stillwatch.store.decisions import Signer
from tests.guard.conftest import Scanned

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    demo: Scanned, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs `stillwatch guard ...`; the folder has two keys and a policy that lists them."""
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", "a secret of the tests, no other")
    policy = ["version = 1", 'mode = "enforce"']
    for number, name in ((1, "anna"), (2, "bela"), (3, "carl")):
        private = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(pem)
        if name != "carl":
            policy += ["[[approver]]", f'name = "{name}"', f'key = "{Signer(private).key}"']
    policy += ["[[rule]]", 'name = "all"', 'action = "block"']
    (tmp_path / "policy.toml").write_text("\n".join(policy))

    def command(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(("guard", *args))
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out.strip(), out.err

    return command


def test_an_order_is_proposed_approved_enforced_and_revoked(run: Run, demo: Scanned, tmp_path: Path) -> None:
    files = {
        n: str(tmp_path / n)
        for n in ("anna.pem", "bela.pem", "carl.pem", "policy.toml", "d.jsonl", "snapshot")
    }
    at = ("--decisions", files["d.jsonl"])
    campaign = demo.members()[0]["campaign_id"]
    make = ("snapshot", str(demo.results), "--out", files["snapshot"], "--policy", files["policy.toml"])
    ask = ("propose", campaign, "--policy", files["policy.toml"], *at, "--key", files["anna.pem"])
    assert run(*ask, "--action", "ban")[0] == 2
    assert run(*ask, "--action", "block", "--days", "0")[0] == 2
    code, digest, _ = run(*ask, "--action", "block", "--mapped", "--reason", "reviewed")
    assert (code, len(digest)) == (0, 64)
    code, _, err = run(*make, *at)
    assert (code, "no approval by a second listed key" in err) == (5, True)
    assert not Path(files["snapshot"]).exists()
    code, _, err = run("approve", digest[:12], *at, "--key", files["anna.pem"])
    assert (code, "somebody else" in err) == (5, True)
    assert run("approve", digest[:4], *at, "--key", files["bela.pem"])[0] == 2
    assert run("approve", "0" * 12, *at, "--key", files["bela.pem"])[0] == 2
    assert run("approve", digest[:12], *at, "--key", files["bela.pem"])[0] == 0
    code, text, _ = run(*make, *at)
    assert (code, "1 campaigns with an order to act" in text) == (0, True)
    listed = json.loads(run("decisions", *at)[1])
    assert (listed["digest"], listed["campaign"], listed["approvals"]) == (digest, campaign, 1)

    whole = Path(files["d.jsonl"]).read_bytes()
    Path(files["d.jsonl"]).write_bytes(whole.splitlines(keepends=True)[0])
    code, _, err = run(*make, *at)
    assert (code, "cut off" in err) == (5, True)
    Path(files["d.jsonl"]).write_bytes(whole)

    assert run("revoke", digest[:12], *at, "--key", files["bela.pem"])[0] == 0
    code, text, _ = run(*make, *at)
    assert (code, "0 campaigns with an order to act" in text) == (0, True)
    Path(files["snapshot"]).write_bytes(b"something else")
    code, _, err = run(*make, *at)
    assert (code, "remove it first" in err) == (5, True)


def test_somebody_whom_the_policy_does_not_list_orders_nothing(
    run: Run, demo: Scanned, tmp_path: Path
) -> None:
    at = ("--decisions", str(tmp_path / "d.jsonl"))
    policy = ("--policy", str(tmp_path / "policy.toml"))
    code, _, _ = run(
        "propose", "g-1", "--action", "throttle", *policy, *at, "--key", str(tmp_path / "carl.pem")
    )
    assert code == 0
    code, _, err = run("snapshot", str(demo.results), "--out", str(tmp_path / "s"), *policy, *at)
    assert (code, "not signed by anybody whom the policy lists" in err) == (5, True)
