"""`stillwatch guard`: snapshots for gateways, and decisions to act."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stillwatch.cli.options import AsJson, Format, Logs, Mapping, Overrides, pairs
from stillwatch.guard.build import VALID_DAYS, Beside, build
from stillwatch.guard.config import GATEWAYS, Setup, render
from stillwatch.guard.doors.check import CheckService
from stillwatch.guard.doors.http import Identity
from stillwatch.guard.doors.watched import Watched
from stillwatch.guard.keys import read_api_keys
from stillwatch.guard.layout import map_snapshot
from stillwatch.guard.policy import ACTIONS, SHADOW, Policy, parse_policy, read_policy
from stillwatch.guard.replay import COLUMNS, Replay, Touched, replay
from stillwatch.guard.secret import Secret, read_secret
from stillwatch.guard.snapshot import Meta, load, save
from stillwatch.ingest import open_log, read_side
from stillwatch.ingest.lookup import read_lookups
from stillwatch.schema.errors import MissingExtraError, SnapshotError, UsageError
from stillwatch.store.decisions import (
    Order,
    approve,
    expire,
    propose,
    read_decisions,
    read_signer,
    revoke,
    standing,
)
from stillwatch.store.files import write_whole

PLAIN = Setup()
"""What a gateway's configuration says without options."""

guard_app = typer.Typer(
    no_args_is_help=True, help="The inline side: snapshots for gateways, decisions to act."
)

Secrets = Annotated[
    Path | None,
    typer.Option("--secret-file", help="File with the secret; STILLWATCH_GUARD_SECRET otherwise."),
]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="Policy (TOML); shadow mode if not given.")]
Decisions = Annotated[Path, typer.Option("--decisions", help="File of decisions (JSON lines).")]
Key = Annotated[Path, typer.Option("--key", help="Your private ed25519 key (PEM).")]
Digest = Annotated[str, typer.Argument(help="The decision's digest, or how it begins.")]


def policy_of(path: Path | None) -> tuple[Policy, str]:
    """The policy at `path`, or shadow mode; and its name."""
    return (parse_policy(SHADOW), "shadow") if path is None else (read_policy(path), path.name)


@guard_app.command("snapshot")
def snapshot(
    results: Annotated[Path, typer.Argument(help="Results folder of a scan.")],
    out: Annotated[Path, typer.Option("--out", help="The snapshot file; replaced in one step.")],
    policy: PolicyFile = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="CSV with account_id and key, or key_sha256.")
    ] = None,
    accounts: Annotated[
        Path | None, typer.Option("--accounts", help="Accounts table: tier, contract, entity_id.")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option("--decisions", help="File of decisions: what may be enforced.")
    ] = None,
    days: Annotated[
        float, typer.Option(help="Days after the log's end for which it may be used.")
    ] = VALID_DAYS,
    secret_file: Secrets = None,
) -> None:
    """Make what a gateway needs from the results of a scan."""
    if not 0 < days <= 365:
        raise UsageError("--days must be more than 0 and at most 365")
    secret = read_secret(secret_file)
    rules, name = policy_of(policy)
    head = _head_before(out, secret) if decisions is not None else None
    beside = Beside(
        accounts=None if accounts is None else read_side("accounts", str(accounts)),
        api_keys=[] if keys is None else read_api_keys(keys),
        decisions=[] if decisions is None else read_decisions(decisions, head),
        policy_name=name,
        valid_days=days,
    )
    meta, arrays = build(results, rules, secret, beside)
    save(out, meta, arrays, secret)
    loaded = load(out, secret)
    print(
        f"{out}: {loaded.accounts:,} accounts, {len(meta.campaigns)} campaigns, "
        f"{len(arrays['api_key_hash']):,} API keys, mode {rules.mode}, "
        f"{len(loaded.enforced)} campaigns with an order to act"
    )


def _head_before(out: Path, secret: Secret) -> str | None:
    """The end of the decisions that the snapshot to be replaced knew: they must still be there."""
    if not out.exists():
        return None
    try:
        meta: Meta = map_snapshot(out, secret, Meta)[0]
    except SnapshotError as error:
        raise SnapshotError(
            f"the snapshot to be replaced cannot be read, so that nobody can tell whether decisions are missing: "
            f"{error.what}",
            where=error.where,
            hint="remove it first, if that is as it should be",
        ) from error
    return meta.decisions_head


@guard_app.command("replay")
def replay_command(
    logs: Logs,
    snapshot: Annotated[Path, typer.Option("--snapshot", help="The snapshot to decide by.")],
    format: Format = None,
    mapping: Mapping = None,
    map_: Overrides = None,
    profiles_only: Annotated[
        bool,
        typer.Option(
            "--profiles-only", help="Nobody is named from the start: what the profiles alone would find."
        ),
    ] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Go on from the scan's counts: for a log that came after it.")
    ] = False,
    references: Annotated[
        Path | None, typer.Option("--references", help="Accounts known to be honest (account_id, group_id).")
    ] = None,
    touched: Annotated[
        Path | None,
        typer.Option("--touched", help="Write every account that would have been acted on (CSV)."),
    ] = None,
    secret_file: Secrets = None,
    as_json: AsJson = False,
) -> None:
    """What a snapshot's policy would have done to a log: by rule, by campaign, and to whom."""
    loaded = load(snapshot, read_secret(secret_file))
    honest: list[str] = []
    if references is not None:
        honest = read_side("references", str(references)).column("account_id").to_pylist()
    with open_log(
        logs, format=format, mapping=mapping, overrides=pairs(map_), columns=COLUMNS, lookups=read_lookups()
    ) as log:
        found = replay(log, loaded, names=not profiles_only, history=history, honest=honest)
    if touched is not None:
        write_whole(touched, [_csv(found)], "the touched accounts")
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    print(
        f"{found.exchanges:,} exchanges of {found.accounts:,} accounts, {found.first} to {found.last}; "
        f"{found.refused_before:,} more had been refused"
    )
    for rule in found.rules:
        print(
            f"rule {rule.rule} (line {rule.line}, {rule.action}): {rule.exchanges:,} exchanges of "
            f"{rule.accounts:,} accounts"
        )
    for c in found.campaigns:
        when = "never cut" if c.first_cut is None else f"cut at {c.first_cut} after {c.before_first_cut:,}"
        print(
            f"campaign {c.campaign}: {c.exchanges:,} exchanges of {c.accounts_named:,} named accounts, {when}; "
            f"{c.cut:,} would not have been answered, {c.let_through:,} would; "
            f"{c.others_touched:,} accounts touched that no campaign names, "
            f"{c.known_honest_touched:,} known to be honest"
        )


def _csv(found: Replay) -> bytes:
    """The accounts that would have been acted on."""
    out = io.StringIO()
    rows = csv.DictWriter(out, Touched.__struct_fields__, lineterminator="\n")
    rows.writeheader()
    rows.writerows(msgspec.to_builtins(entry) for entry in found.touched)
    return out.getvalue().encode()


MOST_HEAD = 1 << 20
"""Bytes of a request's head: more than gateways take. What the service cannot read it has not judged."""


@guard_app.command("serve")
def serve(
    snapshot: Annotated[Path, typer.Option("--snapshot", help="The snapshot; a new one is picked up.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8645,
    account_header: Annotated[
        str | None, typer.Option("--account-header", help="Header in which the proxy names the account.")
    ] = None,
    proxies: Annotated[
        int, typer.Option(help="Proxies in front that add to x-forwarded-for; 0: it is not read.")
    ] = 0,
    secret_file: Secrets = None,
) -> None:
    """Answer proxies over HTTP: /v1/check, and LiteLLM's generic guardrail. Needs the extra `serve`.

    Callers send STILLWATCH_GUARD_TOKEN in x-stillwatch-token. Without one the service listens on loopback only.
    """
    token = os.environ.get("STILLWATCH_GUARD_TOKEN") or None
    if token is None and host not in ("127.0.0.1", "::1", "localhost"):
        raise UsageError(
            "without a token the service listens on loopback only", hint="set STILLWATCH_GUARD_TOKEN"
        )
    if not 0 <= proxies <= 16:
        raise UsageError("--proxies must be 0 to 16")
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("uvicorn", "serve", needed_for="the check service") from error
    guard = Watched(snapshot, read_secret(secret_file))
    who = Identity(account_header, proxies)
    uvicorn.run(
        CheckService(guard, who, token), host=host, port=port, log_level="warning", access_log=False,
        h11_max_incomplete_event_size=MOST_HEAD,
    )  # fmt: skip


@guard_app.command("config")
def config(
    gateway: Annotated[str, typer.Argument(help=f"One of: {', '.join(GATEWAYS)}.")],
    upstream: Annotated[str, typer.Option(help="The model's API.")] = PLAIN.upstream,
    guard: Annotated[str, typer.Option(help="Where `stillwatch guard serve` listens.")] = PLAIN.guard,
    listen: Annotated[str, typer.Option(help="HOST:PORT for clients.")] = PLAIN.listen,
    timeout_ms: Annotated[
        int, typer.Option(help="How long the gateway waits for the guard.")
    ] = PLAIN.timeout_ms,
    closed: Annotated[
        bool,
        typer.Option("--fail-closed/--fail-open", help="What requests meet when the guard does not answer."),
    ] = False,
    hops: Annotated[
        int, typer.Option(help="Trusted proxies in front of the gateway that add to x-forwarded-for.")
    ] = 0,
    credential: Annotated[
        str, typer.Option(help="Header with the API key: authorization or x-api-key. The other is removed.")
    ] = PLAIN.credential,
    account_header: Annotated[
        str | None, typer.Option("--account-header", help="Header in which the gateway names the account.")
    ] = None,
    identity: Annotated[
        list[str] | None,
        typer.Option("--identity-header", help="One more header to remove from clients' requests."),
    ] = None,
    token: Annotated[bool, typer.Option("--token", help="Send STILLWATCH_GUARD_TOKEN to the guard.")] = False,
    tls_cert: Annotated[str | None, typer.Option("--tls-cert", help="Certificate (PEM).")] = None,
    tls_key: Annotated[str | None, typer.Option("--tls-key", help="Its private key (PEM).")] = None,
    log: Annotated[str | None, typer.Option("--log", help="File of the gateway's log.")] = None,
    snapshot: Annotated[str, typer.Option(help="The snapshot file.")] = PLAIN.snapshot,
    model: Annotated[str, typer.Option(help="What vLLM serves.")] = PLAIN.model,
) -> None:
    """Print a gateway's configuration that asks the guard, ready to use."""
    setup = Setup(
        upstream=upstream, guard=guard, listen=listen, timeout_ms=timeout_ms, closed=closed, hops=hops,
        credential=credential, account_header=account_header, identity=tuple(identity or ()), token=token,
        certificate=tls_cert, key=tls_key, log=log, snapshot=snapshot, model=model,
    )  # fmt: skip
    print(render(gateway, setup), end="")


@guard_app.command("propose")
def propose_command(
    campaign: Annotated[str, typer.Argument(help="A campaign's id (g-...).")],
    action: Annotated[str, typer.Option(help="The strongest action that may be taken.")],
    policy: Annotated[Path, typer.Option("--policy", help="The policy under which it is taken.")],
    decisions: Decisions,
    key: Key,
    days: Annotated[float, typer.Option(help="When it ends, in days from now.")] = 7.0,
    mapped: Annotated[bool, typer.Option("--mapped", help="The pool is known: act on all of it.")] = False,
    reason: Annotated[str, typer.Option(help="Why, in words, without names.")] = "",
) -> None:
    """Propose to act on a campaign; prints the digest that somebody else approves."""
    if action not in ACTIONS[2:]:
        raise UsageError(f"{action!r} is no action to order", hint=f"one of: {', '.join(ACTIONS[2:])}")
    if not 0 < days <= 365:
        raise UsageError("--days must be more than 0 and at most 365")
    now = datetime.now(UTC).replace(microsecond=0)
    order = Order(
        campaign=campaign,
        action=action,
        policy=read_policy(policy).digest,
        expires=now + timedelta(days=days),
        mapped=mapped,
        reason=reason,
        at=now,
    )
    print(propose(decisions, order, read_signer(key)).digest)


@guard_app.command("approve")
def approve_command(digest: Digest, decisions: Decisions, key: Key) -> None:
    """Approve a decision that somebody else proposed."""
    approve(decisions, _whole(decisions, digest), read_signer(key), datetime.now(UTC))
    print("approved; it counts from the next snapshot on")


@guard_app.command("revoke")
def revoke_command(digest: Digest, decisions: Decisions, key: Key) -> None:
    """Take a decision back."""
    revoke(decisions, _whole(decisions, digest), read_signer(key), datetime.now(UTC))
    print("revoked; it no longer counts from the next snapshot on")


@guard_app.command("decisions")
def decisions_command(decisions: Decisions) -> None:
    """Check the file of decisions, note what ran out, and list what stands."""
    now = datetime.now(UTC)
    expire(decisions, now)
    for decision in standing(read_decisions(decisions), now):
        order = decision.order
        print(
            json.dumps(
                {
                    "digest": order.digest,
                    "campaign": order.campaign,
                    "action": order.action,
                    "mapped": order.mapped,
                    "expires": order.expires.isoformat(),
                    "approvals": len(decision.approvals),
                }
            )
        )


def _whole(path: Path, begin: str) -> str:
    """The digest of the standing decision that begins so."""
    found = {d.order.digest for d in standing(read_decisions(path), datetime.now(UTC))}
    found = {digest for digest in found if digest.startswith(begin)}
    if len(begin) < 8 or len(found) != 1:
        raise UsageError(
            f"{len(found)} standing decisions begin so" if len(begin) >= 8 else "give at least 8 digits",
            hint="`stillwatch guard decisions` lists them",
        )
    return found.pop()
