"""Envoy as an operator runs it, in front of our model, with a JSON access log; and the traffic sent through."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

from tests.servers.programs import clean_environment, free_port, program, running, wait_for_lines
from tests.servers.upstream import model

ENVOY = "1.40.0"
_TYPES = "type.googleapis.com/envoy.extensions."

FIELDS = {
    "start_time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "x-envoy-origin-path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "response_code": "%RESPONSE_CODE%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "response_flags": "%RESPONSE_FLAGS%",
    "duration": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "x-forwarded-for": "%REQ(X-FORWARDED-FOR)%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "user-agent": "%REQ(USER-AGENT)%",
    "x-request-id": "%REQ(X-REQUEST-ID)%",
    "ja4": "%TLS_JA4_FINGERPRINT%",
    "x-account-id": "%REQ(X-ACCOUNT-ID)%",
    "gen_ai.request.model": "%REQ(X-AI-EG-MODEL)%",
    "gen_ai.usage.input_tokens": "%DYNAMIC_METADATA(io.envoy.ai_gateway:llm_input_token)%",
    "gen_ai.usage.output_tokens": "%DYNAMIC_METADATA(io.envoy.ai_gateway:llm_output_token)%",
}
"""The access log's members, by the names of Envoy AI Gateway."""

BODY = {"model": "m-large", "messages": [{"role": "user", "content": "name a colour"}]}


def envoy_log(folder: Path) -> Path:
    """Run Envoy and send four requests, the third over TLS, the fourth refused by Envoy itself; its access log.

    The TLS request is left out where there is no `openssl` to make a certificate.
    """
    log = folder / "access.jsonl"
    command = program("envoy", "STILLWATCH_ENVOY")
    secured = _certificate(folder)
    plain, tls = free_port(), free_port()
    with model() as upstream:
        listeners = [_listener("plain", plain, log, None)]
        if secured:
            listeners.append(_listener("tls", tls, log, folder))
        (folder / "envoy.json").write_text(json.dumps(_config(listeners, upstream)))
        arguments = [
            *(str(command), "-c", "envoy.json", "--disable-hot-restart", "--concurrency", "1"),
            *("--log-level", "error", "--file-flush-interval-msec", "200"),
        ]
        ready = f"http://127.0.0.1:{plain}/healthz"
        with running(arguments, ready, folder=folder, env=clean_environment(), timeout_s=60):
            before = log.read_bytes().count(b"\n") if log.exists() else 0
            _send(http.client.HTTPConnection("127.0.0.1", plain, timeout=30), "u-1", "203.0.113.9")
            _send(http.client.HTTPConnection("127.0.0.1", plain, timeout=30), "u-2", "6.6.6.6, 198.51.100.7")
            if secured:
                trust = ssl.create_default_context(cafile=str(folder / "cert.pem"))
                _send(
                    http.client.HTTPSConnection("127.0.0.1", tls, timeout=30, context=trust),
                    "u-3",
                    "203.0.113.4",
                )
            _send(
                http.client.HTTPConnection("127.0.0.1", plain, timeout=30),
                "u-4",
                "203.0.113.9",
                "/denied/v1/messages",
            )
            wait_for_lines(log, before + 3 + secured, 30)
    return log


def _send(
    connection: http.client.HTTPConnection, account: str, hops: str, path: str = "/v1/chat/completions"
) -> None:
    headers = {
        "content-type": "application/json",
        "user-agent": "some-sdk/1.0",
        "x-account-id": account,
        "x-ai-eg-model": "m-large",
        "x-forwarded-for": hops,
    }
    try:
        connection.request("POST", path, json.dumps(BODY).encode(), headers)
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    if answer.status != (403 if path.startswith("/denied") else 200):
        raise RuntimeError(f"{path} got {answer.status}")


def _certificate(folder: Path) -> bool:
    if shutil.which("openssl") is None:
        return False
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem",
    ]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    return True


def _listener(name: str, port: int, log: Path, certificate: Path | None) -> dict[str, Any]:
    to_model = {"match": {"prefix": "/"}, "route": {"cluster": "model", "timeout": "30s"}}
    health = {"match": {"path": "/healthz"}, "direct_response": {"status": 200}}
    denied = {"match": {"prefix": "/denied"}, "direct_response": {"status": 403}}
    counted = {
        "@type": _TYPES + "filters.http.set_metadata.v3.Config",
        "metadata": [
            {
                "metadata_namespace": "io.envoy.ai_gateway",
                "value": {"llm_input_token": 21, "llm_output_token": 10},
            }
        ],
    }
    manager: dict[str, Any] = {
        "@type": _TYPES + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        # The front proxy before Envoy has written the header. Set to true, Envoy would append an address of the
        # machine it runs on, because here every caller is on loopback.
        "use_remote_address": False,
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": _TYPES + "access_loggers.file.v3.FileAccessLog",
                    "path": str(log),
                    "log_format": {"json_format": FIELDS},
                },
            }
        ],
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [health, denied, to_model]}]
        },
        "http_filters": [
            {"name": "tokens", "typed_config": counted},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": _TYPES + "filters.http.router.v3.Router"},
            },
        ],
    }
    chain: dict[str, Any] = {"filters": [{"name": "manager", "typed_config": manager}]}
    out: dict[str, Any] = {"name": name, "address": _address(port), "filter_chains": [chain]}
    if certificate is not None:
        inspector = {
            "@type": _TYPES + "filters.listener.tls_inspector.v3.TlsInspector",
            "enable_ja4_fingerprinting": True,
        }
        out["listener_filters"] = [{"name": "tls", "typed_config": inspector}]
        pair = {
            "certificate_chain": {"filename": str(certificate / "cert.pem")},
            "private_key": {"filename": str(certificate / "key.pem")},
        }
        context = {
            "@type": _TYPES + "transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [pair]},
        }
        chain["transport_socket"] = {"name": "tls", "typed_config": context}
    return out


def _config(listeners: list[dict[str, Any]], upstream: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(upstream)}}
    cluster = {
        "name": "model",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "model", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {"static_resources": {"listeners": listeners, "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
