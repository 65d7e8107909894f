"""Configurations that `guard config` prints: what they always say, and what cannot get into them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillwatch.cli import main
from stillwatch.guard.config import FINGERPRINT, GATEWAYS, IDENTITY, OURS, Setup, render
from stillwatch.schema import UsageError

FULL: dict[str, Any] = {
    "closed": True, "hops": 2, "credential": "x-api-key", "account_header": "X-Acme-Account",
    "identity": ("X-Acme-Plan",), "token": True,
    "certificate": "/etc/tls/cert.pem", "key": "/etc/tls/key.pem", "log": "/var/log/sw.log",
    "upstream": "http://model.internal:9000", "guard": "http://[::1]:8700", "listen": "[::1]:8443",
    "timeout_ms": 1500,
}  # fmt: skip


def envoy(setup: Setup) -> dict[str, Any]:
    """The listener's HTTP connection manager."""
    found = yaml.safe_load(render("envoy", setup))
    (chain,) = found["static_resources"]["listeners"][0]["filter_chains"]
    manager: dict[str, Any] = chain["filters"][0]["typed_config"]
    return manager


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_nothing_of_the_template_is_left(gateway: str) -> None:
    for setup in (Setup(), Setup(**FULL)):
        text = render(gateway, setup)
        assert not re.search(r"^@|@[?!*]|@[a-z_]+@", text, re.MULTILINE)
        assert "stillwatch" in text
        assert text.endswith("\n")
        assert all(len(line) < 160 for line in text.splitlines())


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(
            (
                "guard",
                "config",
                "nginx",
                "--listen",
                "127.0.0.1:9999",
                "--fail-closed",
                "--identity-header",
                "x-mine",
            )
        )
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert told == render("nginx", Setup(listen="127.0.0.1:9999", closed=True, identity=("x-mine",)))
    assert "listen 127.0.0.1:9999;" in told
    with pytest.raises(SystemExit) as stop:
        main(("guard", "config", "apache"))
    assert stop.value.code == 2
    assert "one of: nginx, caddy, envoy, litellm, vllm" in capsys.readouterr().err


def test_every_identity_header_is_removed() -> None:
    setup = Setup(**FULL)
    names = {*IDENTITY, *FINGERPRINT, *OURS, "authorization", "x-acme-account", "x-acme-plan"}
    assert names == set(setup.removed())
    mutations = envoy(setup)["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
    assert {m["remove"] for m in mutations if "remove" in m} == names
    # Nothing is removed after the proxy has written its own.
    assert [("remove" in m) for m in mutations] == sorted([("remove" in m) for m in mutations], reverse=True)
    nginx, caddy = render("nginx", setup), render("caddy", setup)
    for name in names:
        # For the model; the guard gets nothing of the client's but the key.
        assert nginx.count(f'proxy_set_header {name} "";') == 1 + (name == "x-acme-account")
        assert f"request_header -{name}\n" in caddy
    assert nginx.count("proxy_pass_request_headers off;") == 1
    assert "x-api-key" in Setup().removed()
    assert {"x-real-ip", "forwarded"} <= set(Setup().removed())


def test_the_fingerprint_is_the_proxy_s() -> None:
    setup = Setup(certificate="c.pem", key="k.pem")
    mutations = envoy(setup)["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
    (set_,) = [m["append"] for m in mutations if "append" in m]
    assert set_["header"] == {"key": "x-ja4", "value": "%TLS_JA4_FINGERPRINT%"}
    assert set_["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"
    assert "%TLS_JA4" not in render("envoy", Setup())


def test_the_guard_inside_litellm() -> None:
    def params(**more: object) -> dict[str, object]:
        text = render("litellm", Setup(in_process=True, **more))  # type: ignore[arg-type]
        found: dict[str, object] = yaml.safe_load(text)["guardrails"][0]["litellm_params"]
        return found

    plain = params()
    assert plain == {
        "guardrail": "stillwatch.guard.doors.litellm.StillwatchGuardrail", "mode": ["pre_call", "post_call"],
        "default_on": True, "snapshot": "snapshot",
    }  # fmt: skip
    assert params(hops=2, closed=True, events="log/events") == plain | {
        "proxies": 2, "fail_closed": True, "events": "log/events",
    }  # fmt: skip
    with pytest.raises(UsageError, match="does not run inside nginx"):
        render("nginx", Setup(in_process=True))
    with pytest.raises(UsageError, match="--events"):
        Setup(events='x"; y')


def test_open_is_the_default() -> None:
    authz = {
        closed: envoy(Setup(closed=closed))["http_filters"][0]["typed_config"] for closed in (False, True)
    }
    assert (authz[False]["failure_mode_allow"], authz[True]["failure_mode_allow"]) == (True, False)
    params = {
        closed: yaml.safe_load(render("litellm", Setup(closed=closed)))["guardrails"][0]["litellm_params"]
        for closed in (False, True)
    }
    assert [(p["unreachable_fallback"], p["fail_on_error"]) for p in params.values()] == [
        ("fail_open", False), ("fail_closed", True),
    ]  # fmt: skip
    assert params[False]["timeout"] == 0.25


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("upstream", "https://model", "no http:// address"), ("upstream", "model:80", "no http:// address"),
        ("guard", "http://a:0", "no http:// address"), ("guard", "http://a:1/v1", "no http:// address"),
        ("guard", "http://a:x", "no http:// address"), ("upstream", "http://u:p@a", "no http:// address"),
        ("upstream", "http://a;b", "no http:// address"), ("upstream", "http://", "no http:// address"),
        ("listen", "8080", "no HOST:PORT"), ("listen", "a:99999", "no HOST:PORT"),
        ("listen", "a b:1", "no HOST:PORT"),
        ("timeout_ms", 0, "from 1 to 60000"), ("hops", 16, "from 0 to 15"), ("credential", "cookie", "not known"),
        ("account_header", "x account", "no header's name"), ("identity", ("a\nb",), "no header's name"),
        ("identity", ("Authorization",), "cannot be removed"),
        ("account_header", "x-forwarded-for", "cannot be removed"),
        ("certificate", "a.pem", "go together"), ("log", "/var/log/a;b", "cannot stand"),
        ("snapshot", "$(id)", "cannot stand"), ("model", "a b", "no model's name"),
    ],
)  # fmt: skip
def test_what_cannot_stand_in_a_configuration(field: str, value: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Setup(**{field: value})


def test_a_shell_can_read_vllm_s(tmp_path: Path) -> None:
    for setup in (Setup(), Setup(**FULL)):
        path = tmp_path / "vllm.sh"
        path.write_text(render("vllm", setup))
        subprocess.run(["sh", "-n", path], check=True, timeout=20)
