"""The real gateways, each with exactly what `stillwatch guard config` prints, and the guard beside it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillwatch.cli import main
from stillwatch.guard.config import NO_ADDRESS_OF_ITS_OWN
from tests.servers.programs import ROOT, clean_environment, free_port, installed, program, running
from tests.servers.upstream import model

SECRET = "a secret of the tests, no other"
IN_PROCESS = "-in-process"
INSIDE = ("vllm", f"litellm{IN_PROCESS}")
"""Doors with the guard in the gateway's own process."""
MASTER_KEY = "sk-" + hashlib.sha256(b"nobody's").hexdigest()


def printed(*arguments: str) -> str:
    """What `stillwatch guard config` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(("guard", "config", *arguments))
    if not out.getvalue():
        raise RuntimeError(f"nothing was printed for {arguments}")
    return out.getvalue()


class GuardService:
    """`stillwatch guard serve` as a process of its own, that can be stopped, hung and started again on its port."""

    def __init__(
        self,
        snapshot: Path,
        folder: Path,
        proxies: int,
        token: str | None,
        account: str | None,
        *more: str,
    ) -> None:
        self.port = free_port()
        self._folder = folder
        self._command = [
            *(sys.executable, "-m", "stillwatch", "guard", "serve", "--snapshot", str(snapshot)),
            *("--port", str(self.port), "--proxies", str(proxies)),
            *(() if account is None else ("--account-header", account)),
            *more,
        ]
        self._env = clean_environment(PYTHONPATH=str(ROOT / "src"), STILLWATCH_GUARD_SECRET=SECRET)
        if token is not None:
            self._env["STILLWATCH_GUARD_TOKEN"] = token
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it is ready."""
        ready = f"http://127.0.0.1:{self.port}/readyz"
        self._process = self._stack.enter_context(
            running(self._command, ready, folder=self._folder, env=self._env, timeout_s=90)
        )

    def close(self) -> None:
        """Until it is gone."""
        self._stack.close()

    def told(self) -> dict[str, Any]:
        """What /readyz says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Gone while the block runs, then there again."""
        assert self._process is not None
        self._process.kill()
        self.close()
        yield
        self.start()

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Connections are taken, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@dataclass
class Front:
    """A gateway that runs, the guard that it asks (None: it is in the gateway's process), and the model behind it."""

    name: str
    port: int
    folder: Path
    guard: GuardService | None
    log: Path
    seen: list[dict[str, str]] = field(default_factory=list)
    """Headers of the requests that reached the model."""
    trust: ssl.SSLContext | None = None

    def ask(
        self,
        key: str,
        body: Mapping[str, Any],
        path: str = "/v1/chat/completions",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of one request of the client with that API key."""
        with self.asked(key, body, path, headers) as answer:
            text = answer.read()
            return answer.status, {n.lower(): v for n, v in answer.getheaders()}, text

    @contextmanager
    def asked(
        self, key: str, body: Mapping[str, Any], path: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer, to be read."""
        if self.trust is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=self.trust)
        own = {
            "authorization": f"Bearer {key}",
            "content-type": "application/json",
            "user-agent": "some-sdk/1.0",
        }
        try:
            connection.request("POST", path, json.dumps(body).encode(), own | dict(headers or {}))
            yield connection.getresponse()
        finally:
            connection.close()

    def counted(self) -> int:
        """Requests that the gateway says it let through, or refused, without an answer of the guard's."""
        time.sleep(0.4)
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        marks = {
            "nginx": '"action":"unavailable"', "caddy": '"stillwatch_action":"unavailable"',
            "envoy": '"stillwatch_unavailable":"true"', "ext_proc": '"stillwatch_unavailable":"1"',
            "litellm": "Generic Guardrail API error (fail-open)",
        }  # fmt: skip
        return text.count(marks[self.name])


@contextmanager
def front(
    name: str,
    folder: Path,
    snapshot: Path,
    *options: str,
    hops: int = 1,
    keys: Mapping[str, str] | None = None,
    guard: int | None = None,
    token: str | None = None,
    account: str | None = None,
    certificate: Path | None = None,
) -> Iterator[Front]:
    """A gateway with what `guard config` prints. `keys`: account of each API key, for LiteLLM's own authentication;
    `guard`: port of something that stands for the guard; `account`: header in which the guard believes an account."""
    seen: list[dict[str, str]] = []
    log = folder / "gateway.log"
    (folder / "guard").mkdir()
    with ExitStack() as stack:
        upstream = stack.enter_context(model(seen))
        service: GuardService | None = None
        grpc = guard if guard is not None else free_port()
        if guard is None and name not in INSIDE:
            more = _grpc(grpc, folder) if name == "ext_proc" else ()
            service = GuardService(
                snapshot, folder / "guard", hops + (name not in NO_ADDRESS_OF_ITS_OWN), token, account, *more
            )
            stack.callback(service.close)
            service.start()
            guard = service.port
        # The others have theirs by now.
        port = free_port()
        arguments = [
            *("--upstream", f"http://127.0.0.1:{upstream}", "--guard", f"http://127.0.0.1:{guard or 1}"),
            *("--listen", f"127.0.0.1:{port}", "--hops", str(hops), "--log", str(log)),
            *("--snapshot", str(snapshot), "--timeout-ms", "1000", *options),
        ]
        trust = None
        if certificate is not None:
            arguments += [
                "--tls-cert",
                str(certificate / "cert.pem"),
                "--tls-key",
                str(certificate / "key.pem"),
            ]
            trust = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
        if token is not None:
            arguments.append("--token")
        if account is not None:
            arguments += ["--account-header", account]
        if name.endswith(IN_PROCESS):
            arguments += ["--in-process", "--events", str(folder / "events")]
        if name == "ext_proc":
            arguments += ["--filter", "ext_proc", "--guard-grpc", f"127.0.0.1:{grpc}", "--exchanges"]
        text = printed("envoy" if name == "ext_proc" else name.removesuffix(IN_PROCESS), *arguments)
        command, env = _START[name](folder, text, port, upstream)
        if token is not None:
            env = {**env, "STILLWATCH_GUARD_TOKEN": token}
            (folder / "stillwatch-token.conf").write_text(f'proxy_set_header x-stillwatch-token "{token}";\n')
        if keys is not None:
            users = {key: {"user_id": account} for key, account in keys.items()}
            env = {**env, "STILLWATCH_KEYS": json.dumps(users)}
        path = "/health/liveliness" if name.startswith("litellm") else "/healthz"
        ready = f"http{'' if trust is None else 's'}://127.0.0.1:{port}{path}"
        stack.enter_context(running(command, ready, folder=folder, env=env, timeout_s=120, trust=trust))
        if name.startswith("litellm"):
            log = folder / "output.txt"
        yield Front(name, port, folder, service, log, seen, trust)


def _nginx(folder: Path, text: str, port: int, upstream: int) -> tuple[list[str], dict[str, str]]:
    command = installed("nginx", "STILLWATCH_NGINX", "apt-get install nginx-light")
    (folder / "stillwatch.conf").write_text(text)
    temporary = "".join(f"{n}_temp_path {n};" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.getuid() == 0 else ""
    # Around the printed file: what Debian's own nginx.conf has around /etc/nginx/conf.d.
    (folder / "nginx.conf").write_text(
        f"daemon off; {user} pid nginx.pid; error_log error.log; worker_processes 1;\n"
        f"events {{}}\nhttp {{ {temporary} include stillwatch.conf; }}\n"
    )
    return [str(command), "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"], clean_environment()


def _caddy(folder: Path, text: str, port: int, upstream: int) -> tuple[list[str], dict[str, str]]:
    command = program("caddy", "STILLWATCH_CADDY")
    (folder / "Caddyfile").write_text(text)
    env = clean_environment(XDG_DATA_HOME=str(folder), XDG_CONFIG_HOME=str(folder))
    return [str(command), "run", "--config", "Caddyfile", "--adapter", "caddyfile"], env


def _envoy(folder: Path, text: str, port: int, upstream: int) -> tuple[list[str], dict[str, str]]:
    command = program("envoy", "STILLWATCH_ENVOY")
    (folder / "envoy.yaml").write_text(text)
    arguments = [
        *(str(command), "-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1"),
        *("--log-level", "error", "--file-flush-interval-msec", "100"),
    ]
    return arguments, clean_environment()


def _litellm(folder: Path, text: str, port: int, upstream: int) -> tuple[list[str], dict[str, str]]:
    command = program("litellm", "STILLWATCH_LITELLM")
    shutil.copy(Path(__file__).with_name("litellm_hooks.py"), folder / "hooks.py")
    (folder / "stillwatch.yaml").write_text(text)
    config = {
        "include": ["stillwatch.yaml"],
        "model_list": [
            {
                "model_name": "m-large",
                "litellm_params": {
                    "model": "openai/deployment-7", "api_key": "none",
                    "api_base": f"http://127.0.0.1:{upstream}/v1", "num_retries": 0,
                },
            },
        ],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY", "custom_auth": "hooks.user_api_key_auth",
            "use_x_forwarded_for": True,
        },
    }  # fmt: skip
    # JSON is YAML.
    (folder / "config.yaml").write_text(json.dumps(config))
    env = clean_environment(
        LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_MASTER_KEY=MASTER_KEY, STILLWATCH_KEYS="{}",
        STILLWATCH_EVENTS=str(folder / "events.jsonl"),
    )  # fmt: skip
    if "StillwatchGuardrail" in text:
        env |= {"PYTHONPATH": str(ROOT / "src"), "STILLWATCH_GUARD_SECRET": SECRET}
    return [str(command), "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)], env


def _vllm(folder: Path, text: str, port: int, upstream: int) -> tuple[list[str], dict[str, str]]:
    (folder / "vllm.sh").write_text(text)
    env = clean_environment(
        PYTHONPATH=str(ROOT / "src"), STILLWATCH_GUARD_SECRET=SECRET, STILLWATCH_TEST_MODEL=str(upstream)
    )
    env["PATH"] = f"{vllm_stand_in(folder)}:{env['PATH']}"
    return ["sh", "vllm.sh"], env


def vllm_stand_in(folder: Path) -> Path:
    """A folder with a program `vllm` in it."""
    out = folder / "bin"
    out.mkdir()
    script = f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).with_name("vllm_like.py")}" "$@"\n'
    (out / "vllm").write_text(script)
    (out / "vllm").chmod(0o755)
    return out


def _grpc(port: int, folder: Path) -> tuple[str, ...]:
    """What the guard's service is told beside, for Envoy over gRPC."""
    return "--grpc", f"127.0.0.1:{port}", "--exchanges", str(folder / "exchanges")


_START = {
    "nginx": _nginx, "caddy": _caddy, "envoy": _envoy, "ext_proc": _envoy, "litellm": _litellm,
    "litellm-in-process": _litellm, "vllm": _vllm,
}  # fmt: skip
