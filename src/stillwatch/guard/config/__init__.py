"""Ready configurations of gateways that ask the guard: the files beside this one, filled in.

A template is the gateway's own file. `@name@` stands for a value; a line that begins with `@?flag@` is there if the
flag is set, with `@!flag@` if it is not, and one with `@*list@` once for each entry, which is `@item@` there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import urlsplit

from stillwatch.schema.errors import UsageError

GATEWAYS: Mapping[str, str] = {
    "nginx": "nginx.conf",
    "caddy": "Caddyfile",
    "envoy": "envoy.yaml",
    "litellm": "litellm.yaml",
    "vllm": "vllm.sh",
}
"""Template of each gateway."""
IN_PROCESS: Mapping[str, str] = {"litellm": "litellm_in_process.yaml"}
"""Template where the guard runs inside the gateway."""
NO_ADDRESS_OF_ITS_OWN = frozenset({"litellm", "vllm"})
"""Gateways that add no entry to `x-forwarded-for`."""
IDENTITY = (
    "x-account", "x-account-id", "x-user", "x-user-id", "x-user-email", "x-end-user-id", "x-customer-id",
    "x-tenant-id", "x-org-id", "x-organization-id", "x-consumer-id", "x-consumer-username", "x-consumer-custom-id",
    "x-credential-identifier", "x-authenticated-userid", "x-auth-request-user", "x-auth-request-email",
    "x-forwarded-user", "x-forwarded-email", "x-remote-user", "remote-user", "x-litellm-customer-id",
    "x-litellm-end-user-id",
)  # fmt: skip
"""Headers by which gateways and applications name a caller: a client that sends one would name himself."""
FINGERPRINT = ("x-ja3", "x-ja3-hash", "x-ja4", "x-ja4h", "x-tls-fingerprint")
"""What a proxy measures of a connection."""
ADDRESS = (
    "forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-original-forwarded-for", "true-client-ip",
    "cf-connecting-ip", "fastly-client-ip",
)  # fmt: skip
"""Other ways to name an address. Behind trusted proxies they are left alone: the guard reads none of them."""
OURS = (
    "x-stillwatch-action", "x-stillwatch-answer", "x-stillwatch-exchange", "x-stillwatch-lacked",
    "x-stillwatch-reason", "x-stillwatch-status", "x-stillwatch-token", "x-envoy-auth-failure-mode-allowed",
)  # fmt: skip
FILTERS = ("ext_authz", "ext_proc")
"""Envoy's two ways to ask: over HTTP, and over gRPC."""
CREDENTIALS = ("authorization", "x-api-key")
"""Headers in which the public APIs take an API key."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")
_PATH = re.compile(r"[A-Za-z0-9._/+-]+")
_MODEL = re.compile(r"[A-Za-z0-9._/:+-]+")
_MARK = re.compile(r"@([?!*])(\w+)@(.*)", re.DOTALL)
_VALUE = re.compile(r"@([a-z_]+)@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a gateway's configuration depends on. UsageError for what cannot stand in a configuration."""

    upstream: str = "http://127.0.0.1:8000"
    """The model's API, http://HOST:PORT."""
    guard: str = "http://127.0.0.1:8645"
    """The guard's service, http://HOST:PORT."""
    filter: str = "ext_authz"
    """How Envoy asks: one of `FILTERS`."""
    grpc: str = "127.0.0.1:8646"
    """HOST:PORT of the guard's gRPC service, for ext_proc."""
    exchanges: bool = False
    """Send Envoy's access log to the gRPC service, which writes canonical rows."""
    listen: str = "127.0.0.1:8080"
    """HOST:PORT that clients connect to."""
    timeout_ms: int = 250
    """How long the gateway waits for the guard."""
    closed: bool = False
    """Refuse requests that the guard could not be asked about; by default they go on, and are counted."""
    hops: int = 0
    """Trusted proxies before the gateway that add to `x-forwarded-for`; 0: clients connect to the gateway itself."""
    credential: str = "authorization"
    """Header in which the model's API takes the key. The others are removed: a client with two keys would be judged
    by one and served by the other."""
    account_header: str | None = None
    """Header in which an authentication step inside the gateway names the account."""
    identity: Sequence[str] = ()
    """More headers to remove from what clients send."""
    token: bool = False
    """Send STILLWATCH_GUARD_TOKEN to the guard."""
    certificate: str | None = None
    key: str | None = None
    """TLS: PEM files. Without, the gateway speaks plain HTTP and Envoy has no fingerprint to set."""
    log: str | None = None
    """File of the gateway's log; the gateway's usual place if not given."""
    snapshot: str = "snapshot"
    """The snapshot file, for the guard's own command line."""
    model: str = "MODEL"
    """What `vllm serve` serves."""
    in_process: bool = False
    """The guard runs inside the gateway: no service beside it."""
    events: str | None = None
    """Folder in which the guard inside LiteLLM logs what was asked, without text."""

    def __post_init__(self) -> None:
        _address(self.upstream, "--upstream", "http://127.0.0.1:8000")
        _address(self.guard, "--guard", "http://127.0.0.1:8645")
        if self.filter not in FILTERS:
            raise UsageError(f"--filter {self.filter!r} is not known", hint=f"one of: {', '.join(FILTERS)}")
        if self.exchanges and self.filter != "ext_proc":
            raise UsageError("--exchanges needs the gRPC service", hint="add --filter ext_proc")
        for option, place, example in (("--listen", self.listen, 8080), ("--guard-grpc", self.grpc, 8646)):
            host, _, port = place.rpartition(":")
            if not _HOST.fullmatch(host) or not port.isdecimal() or not 0 < int(port) < 65536:
                raise UsageError(
                    f"{option} {place!r} is no HOST:PORT", hint=f"for example 127.0.0.1:{example}"
                )
        if not 1 <= self.timeout_ms <= 60_000:
            raise UsageError(f"--timeout-ms {self.timeout_ms} is not from 1 to 60000")
        if not 0 <= self.hops <= 15:
            raise UsageError(f"--hops {self.hops} is not from 0 to 15")
        if self.credential not in CREDENTIALS:
            raise UsageError(
                f"--credential {self.credential!r} is not known", hint=f"one of: {', '.join(CREDENTIALS)}"
            )
        for name in (*self.identity, *(() if self.account_header is None else (self.account_header,))):
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"{name!r} is no header's name", hint="letters, digits and hyphens, for example x-account"
                )
            if name.lower() in (*CREDENTIALS, "x-forwarded-for", "host", "content-type", "content-length"):
                raise UsageError(
                    f"{name!r} cannot be removed: requests need it", hint="name the header of an account"
                )
        if (self.certificate is None) != (self.key is None):
            raise UsageError("a certificate and its key go together", hint="--tls-cert FILE --tls-key FILE")
        for option, path in (
            ("--tls-cert", self.certificate), ("--tls-key", self.key), ("--log", self.log),
            ("--snapshot", self.snapshot), ("--events", self.events),
        ):  # fmt: skip
            if path is not None and not _PATH.fullmatch(path):
                raise UsageError(
                    f"{option} {path!r} cannot stand in a configuration",
                    hint="letters, digits and ._/+- only",
                )
        if not _MODEL.fullmatch(self.model):
            raise UsageError(
                f"--model {self.model!r} is no model's name", hint="letters, digits and ._/:+- only"
            )

    def removed(self) -> tuple[str, ...]:
        """Headers that clients' requests lose, in the order of the alphabet."""
        names = {*IDENTITY, *FINGERPRINT, *OURS, *(name.lower() for name in self.identity)}
        names |= set(CREDENTIALS) - {self.credential}
        if self.account_header is not None:
            names.add(self.account_header.lower())
        if self.hops == 0:
            names |= set(ADDRESS)
        return tuple(sorted(names))


def render(gateway: str, setup: Setup) -> str:
    """The configuration of one of `GATEWAYS`. UsageError for another name."""
    if gateway not in GATEWAYS:
        raise UsageError(f"{gateway!r} is no gateway that is known", hint=f"one of: {', '.join(GATEWAYS)}")
    if setup.in_process and gateway not in IN_PROCESS:
        raise UsageError(
            f"the guard does not run inside {gateway}", hint=f"--in-process is for: {', '.join(IN_PROCESS)}"
        )
    name = (IN_PROCESS if setup.in_process else GATEWAYS)[gateway]
    template = files(__package__).joinpath(name).read_text("utf-8")
    host, _, port = setup.listen.rpartition(":")
    upstream, guard = _address(setup.upstream), _address(setup.guard)
    if setup.filter == "ext_proc":
        if gateway != "envoy":
            raise UsageError("--filter is Envoy's", hint="stillwatch guard config envoy --filter ext_proc")
        at, _, number = setup.grpc.rpartition(":")
        guard = at, int(number)
    proxies = setup.hops + (gateway not in NO_ADDRESS_OF_ITS_OWN)
    values = {
        "listen": setup.listen, "listen_host": host.strip("[]"), "listen_at": host, "listen_port": port,
        "upstream": setup.upstream, "upstream_at": f"{upstream[0]}:{upstream[1]}",
        "upstream_host": upstream[0].strip("[]"), "upstream_port": str(upstream[1]),
        "guard": setup.guard, "guard_at": f"{guard[0]}:{guard[1]}", "guard_host": guard[0].strip("[]"),
        "guard_port": str(guard[1]), "timeout_ms": str(setup.timeout_ms), "timeout_s": f"{setup.timeout_ms / 1000:g}",
        "hops": str(setup.hops), "proxies": str(proxies), "credential": setup.credential,
        "credential_variable": setup.credential.replace("-", "_"),
        "account_header": (setup.account_header or "").lower(), "certificate": setup.certificate or "",
        "key": setup.key or "", "log": setup.log or "", "snapshot": setup.snapshot, "model": setup.model,
        "events": setup.events or "",
        "more": (" --exchanges exchanges" if setup.exchanges else "")
        + (f" --account-header {setup.account_header.lower()}" if setup.account_header else ""),
    }  # fmt: skip
    flags = {
        "closed": setup.closed, "hops": setup.hops > 0, "account": setup.account_header is not None,
        "token": setup.token, "tls": setup.certificate is not None, "log": setup.log is not None,
        "events": setup.events is not None,
        "proc": setup.filter == "ext_proc", "exchanges": setup.exchanges,
    }  # fmt: skip
    lists = {"removed": setup.removed()}
    return "".join(_line(line, values, flags, lists) for line in template.splitlines(keepends=True))


def _line(
    line: str, values: Mapping[str, str], flags: Mapping[str, bool], lists: Mapping[str, Sequence[str]]
) -> str:
    mark = _MARK.fullmatch(line)
    if mark is None:
        return _VALUE.sub(lambda found: values[found[1]], line)
    kind, name, rest = mark.groups()
    if kind == "*":
        return "".join(_line(rest, {**values, "item": item}, flags, lists) for item in lists[name])
    return _line(rest, values, flags, lists) if flags[name] == (kind == "?") else ""


def _address(text: str, option: str = "", example: str = "") -> tuple[str, int]:
    """(host, port) of an http:// address."""
    try:
        found = urlsplit(text)
        port = found.port
    except ValueError:
        found, port = urlsplit(""), None
    bare = found.path in ("", "/") and not (found.query or found.fragment or "@" in found.netloc)
    host = found.netloc.rpartition(":")[0] if port is not None else found.netloc
    if found.scheme != "http" or not bare or not _HOST.fullmatch(host) or port == 0:
        raise UsageError(
            f"{option} {text!r} is no http:// address of a host and port", hint=f"for example {example}"
        )
    return host, 80 if port is None else port


__all__ = [
    "ADDRESS",
    "CREDENTIALS",
    "FILTERS",
    "FINGERPRINT",
    "GATEWAYS",
    "IDENTITY",
    "IN_PROCESS",
    "OURS",
    "Setup",
    "render",
]
