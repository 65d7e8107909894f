"""`stillwatch guard`: snapshots for gateways, and decisions to act."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stillwatch.cli.decisions import approve_command, decisions_command, propose_command, revoke_command
from stillwatch.cli.intel import heeded
from stillwatch.cli.log import LogFile, LogKey, commit, ready
from stillwatch.cli.options import (
    Appeals,
    AsJson,
    Format,
    Logs,
    Mapping,
    Overrides,
    SideTable,
    pairs,
    seconds,
)
from stillwatch.cli.publish import publish_command
from stillwatch.cli.serve import Secrets, serve
from stillwatch.guard.build import VALID_DAYS, Beside, build
from stillwatch.guard.committed import of_snapshot
from stillwatch.guard.config import GATEWAYS, Setup, render
from stillwatch.guard.keys import read_api_keys
from stillwatch.guard.layout import map_snapshot
from stillwatch.guard.live import Live, LiveTouched, Operation
from stillwatch.guard.live import live as replay_live
from stillwatch.guard.logged import COLUMNS
from stillwatch.guard.policy import SHADOW, Policy, parse_policy, read_policy
from stillwatch.guard.replay import Touched, replay
from stillwatch.guard.secret import Secret, read_secret
from stillwatch.guard.snapshot import Meta, load, save
from stillwatch.ingest import open_log, read_side
from stillwatch.ingest.lookup import read_lookups
from stillwatch.schema.errors import SnapshotError, UsageError
from stillwatch.schema.times import DAY_US
from stillwatch.store.appeals import read_appeals
from stillwatch.store.decisions import read_decisions
from stillwatch.store.files import write_whole

PLAIN = Setup()
"""What a gateway's configuration says without options."""

guard_app = typer.Typer(
    no_args_is_help=True, help="The inline side: snapshots for gateways, decisions to act."
)

PolicyFile = Annotated[Path | None, typer.Option("--policy", help="Policy (TOML); shadow mode if not given.")]
guard_app.command("publish")(publish_command)
guard_app.command("serve")(serve)


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
    appeals: Appeals = None,
    days: Annotated[
        float, typer.Option(help="Days after the log's end for which it may be used.")
    ] = VALID_DAYS,
    intel: Annotated[
        Path | None,
        typer.Option(
            "--intel", help="Store of partners' indicators: requests that fit one get a tag, no action."
        ),
    ] = None,
    key_ring: Annotated[
        Path | None,
        typer.Option("--key-ring", help="With --intel: the ring with the keys agreed on with partners."),
    ] = None,
    secret_file: Secrets = None,
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Make what a gateway needs from the results of a scan."""
    if not 0 < days <= 365:
        raise UsageError("--days must be more than 0 and at most 365")
    secret = read_secret(secret_file)
    ready(log, log_key)
    rules, name = policy_of(policy)
    before = _before(out, secret, needed=decisions is not None or appeals is not None)
    head = None if before is None else before.decisions_head
    head_of_appeals = None if before is None else before.appeals_head or None
    beside = Beside(
        accounts=None if accounts is None else read_side("accounts", str(accounts)),
        api_keys=[] if keys is None else read_api_keys(keys),
        decisions=[] if decisions is None else read_decisions(decisions, head),
        # Without the file that freed them, people would be blocked again, and nobody would have decided that.
        appeals=read_appeals(appeals or Path("appeals"), head_of_appeals)
        if appeals is not None or head_of_appeals
        else [],
        policy_name=name,
        valid_days=days,
        intel=heeded(intel, key_ring),
    )
    meta, arrays = build(results, rules, secret, beside)
    save(out, meta, arrays, secret)
    loaded = load(out, secret)
    print(
        f"{out}: {loaded.accounts:,} accounts, {len(meta.campaigns)} campaigns, "
        f"{len(arrays['api_key_hash']):,} API keys, mode {rules.mode}, "
        f"{len(loaded.enforced)} campaigns with an order to act"
        + (f", {len(meta.intel)} fingerprints of partners" if intel is not None else "")
    )
    commit(log, log_key, lambda: [of_snapshot(out)], f"the snapshot is in {out}")


def _before(out: Path, secret: Secret, *, needed: bool) -> Meta | None:
    """The header of the snapshot to be replaced: the decisions and appeals that it knew must still be there."""
    if not out.exists():
        return None
    try:
        meta: Meta = map_snapshot(out, secret, Meta)[0]
    except SnapshotError as error:
        if not needed:
            return None
        raise SnapshotError(
            f"the snapshot to be replaced cannot be read, so that nobody can tell whether decisions are missing: "
            f"{error.what}",
            where=error.where,
            hint="remove it first, if that is as it should be",
        ) from error
    return meta


@guard_app.command("replay")
def replay_command(
    logs: Logs,
    snapshot: Annotated[
        Path | None, typer.Option("--snapshot", help="The snapshot to decide by; not with --live.")
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="As live operation: scan at intervals, decide by the last snapshot."),
    ] = False,
    every: Annotated[str, typer.Option("--every", help="With --live: time between two scans.")] = "6h",
    window_days: Annotated[int, typer.Option("--window-days", help="With --live: days of a scan.")] = 14,
    scan_takes: Annotated[
        str, typer.Option("--scan-takes", help="With --live: from a scan's time to its snapshot.")
    ] = "10m",
    decision_after: Annotated[
        str, typer.Option("--decision-after", help="With --live: what people take to decide to act.")
    ] = "0s",
    scan_after: Annotated[
        str, typer.Option("--scan-after", help="With --live: no scan before so much of the log's time.")
    ] = "0s",
    only_watch: Annotated[
        bool, typer.Option("--only-watch", help="With --live: refuse nothing; tell what would have been.")
    ] = False,
    policy: PolicyFile = None,
    accounts: SideTable = None,
    sanctions: SideTable = None,
    releases: SideTable = None,
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
    secret = read_secret(secret_file)
    honest: list[str] = []
    if references is not None:
        honest = read_side("references", str(references)).column("account_id").to_pylist()
    if live:
        if snapshot is not None or profiles_only or history:
            raise UsageError(
                "--live makes its own snapshots: leave out --snapshot, --profiles-only and --history"
            )
        how = Operation(
            every_us=int(seconds(every) * 1e6),
            window_us=window_days * DAY_US,
            takes_us=int(seconds(scan_takes, 0.0) * 1e6),
            decided_us=int(seconds(decision_after, 0.0) * 1e6),
            after_us=int(seconds(scan_after, 0.0) * 1e6),
            enforce=not only_watch,
        )
        side = {"accounts": accounts, "sanctions": sanctions, "releases": releases, "references": references}
        with open_log(
            logs,
            format=format,
            mapping=mapping,
            overrides=pairs(map_),
            side={name: str(path) for name, path in side.items() if path is not None},
            lookups=read_lookups(),
        ) as log:
            done = replay_live(
                log, policy_of(policy)[0], secret, how, honest=frozenset(honest), told=_progress
            )
        if touched is not None:
            write_whole(touched, [_csv(done.touched)], "the touched accounts")
        print(msgspec.json.format(msgspec.json.encode(done)).decode() if as_json else live_text(done))
        return
    if snapshot is None:
        raise UsageError("name the snapshot to decide by", hint="--snapshot FILE, or --live")
    loaded = load(snapshot, secret)
    with open_log(
        logs, format=format, mapping=mapping, overrides=pairs(map_), columns=COLUMNS, lookups=read_lookups()
    ) as log:
        found = replay(log, loaded, names=not profiles_only, history=history, honest=honest)
    if touched is not None:
        write_whole(touched, [_csv(found.touched)], "the touched accounts")
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


def _csv(touched: Sequence[Touched] | Sequence[LiveTouched]) -> bytes:
    """The accounts that would have been acted on."""
    out = io.StringIO()
    fields = touched[0].__struct_fields__ if touched else Touched.__struct_fields__
    rows = csv.DictWriter(out, fields, lineterminator="\n")
    rows.writeheader()
    rows.writerows(msgspec.to_builtins(entry) for entry in touched)
    return out.getvalue().encode()


def _progress(step: int, steps: int, words: str) -> None:
    print(f"{step} of {steps}: {words}", file=sys.stderr, flush=True)


def live_text(found: Live) -> str:
    """A live replay in words."""
    lines = [
        f"{found.exchanges:,} exchanges of {found.accounts:,} accounts, {found.first} to {found.last}; "
        f"{found.scans} scans, {found.scan_s:.0f} s"
    ]
    for c in found.campaigns:
        lead = f"a lead at {c.first_lead}, " if c.first_lead is not None else ""
        when = "never cut"
        if c.first_cut is not None:
            when = f"cut at {c.first_cut} after {c.before_first_cut:,} exchanges; then {c.cut:,} refused, "
            when += f"{c.through_after:,} answered"
        lines.append(
            f"campaign {c.campaign}: {lead}listed at {c.first_listed}, {c.accounts:,} accounts, "
            f"{c.exchanges:,} exchanges, {when}; {c.accounts_cut:,} accounts cut, {c.others_cut:,} others"
        )
    hit = {entry.account_id for entry in found.touched if entry.known_honest}
    lines.append(
        f"{len({t.account_id for t in found.touched}):,} accounts acted on, {len(hit):,} of them known to be honest"
    )
    return "\n".join(lines)


@guard_app.command("config")
def config(
    gateway: Annotated[str, typer.Argument(help=f"One of: {', '.join(GATEWAYS)}.")],
    upstream: Annotated[str, typer.Option(help="The model's API.")] = PLAIN.upstream,
    guard: Annotated[str, typer.Option(help="Where `stillwatch guard serve` listens.")] = PLAIN.guard,
    filter: Annotated[
        str, typer.Option("--filter", help="How Envoy asks: ext_authz (HTTP) or ext_proc (gRPC).")
    ] = PLAIN.filter,
    guard_grpc: Annotated[
        str, typer.Option("--guard-grpc", help="Where `guard serve --grpc` listens, for ext_proc.")
    ] = PLAIN.grpc,
    exchanges: Annotated[
        bool, typer.Option("--exchanges", help="Envoy's access log goes to `guard serve --exchanges` too.")
    ] = False,
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
    in_process: Annotated[
        bool, typer.Option("--in-process", help="LiteLLM: the guard runs inside it, not beside it.")
    ] = False,
    events: Annotated[
        str | None,
        typer.Option("--events", help="Inside LiteLLM: folder for a log of requests, without text."),
    ] = None,
) -> None:
    """Print a gateway's configuration that asks the guard, ready to use."""
    setup = Setup(
        upstream=upstream, guard=guard, filter=filter, grpc=guard_grpc, exchanges=exchanges, listen=listen,
        timeout_ms=timeout_ms, closed=closed, hops=hops,
        credential=credential, account_header=account_header, identity=tuple(identity or ()), token=token,
        certificate=tls_cert, key=tls_key, log=log, snapshot=snapshot, model=model,
        in_process=in_process, events=events,
    )  # fmt: skip
    print(render(gateway, setup), end="")


guard_app.command("propose")(propose_command)
guard_app.command("approve")(approve_command)
guard_app.command("revoke")(revoke_command)
guard_app.command("decisions")(decisions_command)
