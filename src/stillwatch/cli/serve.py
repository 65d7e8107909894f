"""`stillwatch guard serve`: the check service for proxies, with its gRPC services beside it."""

from __future__ import annotations

import logging
import ssl
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from stillwatch.cli.listen import host_port, token_for
from stillwatch.guard.doors.ask import ask
from stillwatch.guard.doors.check import CheckService
from stillwatch.guard.doors.http import Identity
from stillwatch.guard.doors.journal import begin, told
from stillwatch.guard.doors.metrics import Metrics
from stillwatch.guard.doors.serving import App
from stillwatch.guard.doors.spans import Spans, exporting
from stillwatch.guard.doors.watched import Watched
from stillwatch.guard.secret import Secret, read_secret
from stillwatch.schema.errors import MissingExtraError, UsageError

Secrets = Annotated[
    Path | None,
    typer.Option("--secret-file", help="File with the secret; STILLWATCH_GUARD_SECRET otherwise."),
]


MOST_HEAD = 1 << 20
"""Bytes of a request's head: more than gateways take. What the service cannot read it has not judged."""


def serve(
    snapshot: Annotated[
        str,
        typer.Option("--snapshot", help="The snapshot: a file, http://, https:// or valkey://; followed."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8645,
    account_header: Annotated[
        str | None, typer.Option("--account-header", help="Header in which the proxy names the account.")
    ] = None,
    proxies: Annotated[
        int, typer.Option(help="Proxies in front that add to x-forwarded-for; 0: it is not read.")
    ] = 0,
    grpc: Annotated[
        str | None, typer.Option("--grpc", help="HOST:PORT or unix:PATH for Envoy's ext_proc. Extra `envoy`.")
    ] = None,
    exchanges: Annotated[
        Path | None, typer.Option("--exchanges", help="Folder for rows of Envoy's exchanges; with --grpc.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Certificate (PEM): the service speaks TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key (PEM).")] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option("--client-ca", help="Certificates (PEM); who has none signed by them cannot connect."),
    ] = None,
    spans: Annotated[
        bool, typer.Option("--spans", help="Send a span for each decision by OTLP/HTTP (extra `otel`).")
    ] = False,
    span_hashes: Annotated[
        bool, typer.Option("--span-hashes", help="With the keyed hash of each request's input.")
    ] = False,
    secret_file: Secrets = None,
) -> None:
    """Answer proxies over HTTP: /v1/check, and LiteLLM's generic guardrail. Needs the extra `serve`.

    Callers send STILLWATCH_GUARD_TOKEN in x-stillwatch-token, or show a certificate (`--client-ca`). With neither
    the service listens on loopback only.
    """
    tls = _tls(tls_cert, tls_key, client_ca)
    # Certificates are asked for over HTTP alone.
    reached = [] if client_ca is not None else [host]
    if grpc is not None and not grpc.startswith("unix:"):
        reached.append(host_port(grpc, "--grpc")[0])
    token = token_for("STILLWATCH_GUARD_TOKEN", *reached)
    if not 0 <= proxies <= 16:
        raise UsageError("--proxies must be 0 to 16")
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("uvicorn", "serve", needed_for="the check service") from error
    if exchanges is not None and grpc is None:
        raise UsageError("--exchanges is written by the gRPC service", hint="add --grpc 127.0.0.1:8646")
    from stillwatch.guard.doors.prometheus import Exposition, GuardCollector

    if span_hashes and not spans:
        raise UsageError("--span-hashes needs --spans")
    secret = read_secret(secret_file)
    provider = exporting() if spans else None
    begin()
    guard = Watched(snapshot, secret, token=token)
    metrics = Metrics(guard)
    if guard.fetched is not None:
        metrics.tallies.append(guard.fetched.tally())
    if provider is not None:
        metrics.spans = Spans(provider, secret.spans() if span_hashes else None)

    def closing() -> None:
        guard.close()
        if provider is not None:
            provider.shutdown()
        told("stopped", level=logging.INFO, requests=sum(metrics.seen().decisions.values()))

    who, text = Identity(account_header, proxies), Exposition(GuardCollector(metrics)).text
    service = CheckService(guard, who, token, metrics, text, closing)
    loaded = guard.guard.snapshot
    told(
        "started", level=logging.INFO, mode=loaded.policy.mode, campaigns=len(loaded.meta.campaigns),
        expires_us=loaded.meta.expires_us, token=token is not None, tls=tls_cert is not None,
        client_certificates=client_ca is not None,
    )  # fmt: skip
    # Proxies keep connections for a minute (nginx: 60 s); who closes first must not be the guard.
    app = service if grpc is None else _with_grpc(service, grpc, exchanges, secret, who, token)
    uvicorn.run(
        app, host=host, port=port, log_config=None, access_log=False, server_header=False, date_header=False,
        timeout_keep_alive=75, h11_max_incomplete_event_size=MOST_HEAD, **tls,
    )  # fmt: skip


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> dict[str, Any]:
    """What uvicorn is told about TLS. UsageError for half a setting, or a file that cannot be read."""
    if (cert is None) != (key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    if cert is None:
        if client_ca is not None:
            raise UsageError("--client-ca needs --tls-cert and --tls-key")
        return {}
    found: dict[str, Any] = {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}
    if client_ca is not None:
        found |= {"ssl_ca_certs": str(client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password="")
        if client_ca is not None:
            context.load_verify_locations(client_ca)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            "the files for TLS cannot be used", hint="PEM files that belong together, keys without password"
        ) from error
    return found


def _with_grpc(
    service: CheckService,
    address: str,
    exchanges: Path | None,
    secret: Secret,
    who: Identity,
    token: str | None,
) -> App:
    """The service with Envoy's gRPC services beside it."""
    # Only here: they need the extra.
    from stillwatch.guard.doors.access_log import AccessLog
    from stillwatch.guard.doors.ext_proc import ExternalProcessor
    from stillwatch.guard.doors.grpc_server import GrpcDoor, WithGrpc
    from stillwatch.guard.doors.rotated import Rotated

    log = None if exchanges is None else AccessLog(Rotated(exchanges), who, secret)
    if log is not None:
        service.metrics.tallies.append(log.tally())
    decide = partial(ask, service.metrics, adapter="ext_proc")
    note = None if log is None else log.note
    metrics = service.metrics
    processor = ExternalProcessor(
        decide, who, note, lambda: metrics.source.guard.snapshot.policy.enforces("strip")
    )
    metrics.tallies.append(processor.answers.tally())
    return WithGrpc(service, GrpcDoor(address, service, processor, log, token))
