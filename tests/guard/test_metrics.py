"""Counters of the doors: bounded labels, no identity, and they never go backwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stillwatch.guard import Guard, Subject
from stillwatch.guard.decide import Decision
from stillwatch.guard.doors import envoy_messages as pb
from stillwatch.guard.doors.access_log import AccessLog
from stillwatch.guard.doors.ask import ask
from stillwatch.guard.doors.check import LITELLM, CheckService
from stillwatch.guard.doors.fetch import Fetched
from stillwatch.guard.doors.metrics import BUCKETS_S, Metrics
from stillwatch.guard.doors.prometheus import Exposition, GuardCollector, IngestCollector
from stillwatch.guard.doors.rotated import Rotated
from stillwatch.schema.errors import SnapshotError
from tests.guard.conftest import SECRET, Scanned
from tests.guard.test_decide import _enforced, _now, _strong
from tests.guard.test_doors import WHO, _ask, _Fixed

Sample = tuple[str, frozenset[tuple[str, str]]]


def read(text: bytes) -> dict[Sample, float]:
    """Every sample by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def total(found: dict[Sample, float], name: str, **labels: str) -> float:
    """Sum of the samples that have these labels."""
    return sum(v for (n, has), v in found.items() if n == name and labels.items() <= dict(has).items())


def test_what_a_service_did_can_be_scraped(demo: Scanned, tmp_path: Path) -> None:
    fixed = _Fixed(_enforced(demo, tmp_path / "snapshot"), _now(demo))
    metrics = Metrics(fixed)
    clock = fixed.guard.snapshot.meta.last_us / 1e6 + 60
    scraped = Exposition(GuardCollector(metrics, lambda: clock)).text
    app = CheckService(fixed, WHO, "a token", metrics, scraped)  # type: ignore[arg-type]
    member, token = _strong(demo)[0]["account_id"], {"x-stillwatch-token": "a token"}
    for account in (member, member, "somebody"):
        _ask(app, "/v1/check", {"x-account": account, "x-forwarded-for": "203.0.113.9"} | token)
    asked = {"request_data": {"user_api_key_user_id": member}, "texts": ["a secret word"]}
    _ask(app, LITELLM, token, json.dumps(asked).encode())
    _ask(app, "/v1/check", {"x-account": member})
    text = _ask(app, "/metrics", method="GET")[1]["body"]
    found = read(text)
    decisions = "stillwatch_decisions_total"
    assert total(found, decisions) == 4
    assert total(found, decisions, action="block", mode="enforce", adapter="check", reason="named") == 2
    assert total(found, decisions, action="block", adapter="litellm") == 1
    assert total(found, decisions, action="allow", would="allow", reason="nothing_known") == 1
    assert total(found, "stillwatch_refusals_total") == 3
    assert total(found, "stillwatch_strangers_total") == 1
    assert total(found, "stillwatch_lacked_total", input="prompt") == 3
    assert total(found, "stillwatch_snapshot_age_seconds") == 60
    meta = fixed.guard.snapshot.meta
    assert total(found, "stillwatch_snapshot_expires_seconds") == meta.expires_us / 1e6 - clock
    assert total(found, "stillwatch_decision_seconds_count", adapter="check") == 3
    assert total(found, "stillwatch_decision_seconds_bucket", adapter="check", le="+Inf") == 3
    assert not [word for word in (member, "203.0.113", "secret word", "somebody") if word in text.decode()]


def test_what_parts_of_the_process_count_is_shown(demo: Scanned, tmp_path: Path) -> None:
    metrics = Metrics(_Fixed(demo.snapshot, _now(demo)))
    log = AccessLog(Rotated(tmp_path / "rows"), WHO, SECRET)
    fetched = Fetched("http://127.0.0.1:1/v1/snapshot", SECRET, cache=tmp_path)
    metrics.tallies += [log.tally(), fetched.tally()]
    text = Exposition(GuardCollector(metrics)).text
    assert total(read(text()), "stillwatch_snapshot_fetches_total", state="failed") == 0
    log.take(pb.StreamAccessLogsMessage(http_logs={"log_entry": [{}, {}]}).SerializeToString())
    log.close()
    with pytest.raises(SnapshotError):
        fetched.start(lambda: None, 0)
    found = read(text())
    assert total(found, "stillwatch_envoy_exchanges_total", state="other") == 2
    assert total(found, "stillwatch_snapshot_fetches_total", state="failed") == 1
    app = CheckService(metrics.source, WHO, None, metrics)  # type: ignore[arg-type]
    assert json.loads(_ask(app, "/readyz", method="GET")[1]["body"])["envoy_exchanges"]["other"] == 2


def test_totals_go_on_over_a_swap(demo: Scanned) -> None:
    fixed = _Fixed(demo.snapshot, _now(demo))
    metrics = Metrics(fixed)
    text = Exposition(GuardCollector(metrics)).text
    for _ in range(3):
        ask(metrics, Subject(account="a"), "asgi")
    before = read(text())
    fixed.guard, fixed.swaps = Guard(demo.snapshot, clock=lambda: _now(demo)), 1
    ask(metrics, Subject(account="a"), "asgi")
    after = read(text())
    assert all(
        after[sample] >= value for sample, value in before.items() if not sample[0].startswith("stillwatch_s")
    )
    assert total(after, "stillwatch_decisions_total", adapter="asgi") == 4
    assert total(after, "stillwatch_snapshot_swaps_total") == 1


class _Broken(Guard):
    def _decide(self, subject: Subject) -> Decision:
        raise ValueError(f"what {subject.account} sent")


def test_failing_open_is_counted_by_cause(demo: Scanned) -> None:
    fixed = _Fixed(demo.snapshot, _now(demo))
    late = demo.snapshot.meta.expires_us + 1
    metrics = Metrics(fixed)
    fixed.guard = _Broken(demo.snapshot)
    ask(metrics, Subject(account="a"), "envoy")
    fixed.guard = Guard(demo.snapshot, clock=lambda: late)
    ask(metrics, Subject(account=_strong(demo)[0]["account_id"]), "envoy")
    found = read(Exposition(GuardCollector(metrics)).text())
    assert total(found, "stillwatch_faults_total") == 1
    assert total(found, "stillwatch_fail_open_total", cause="fault") == 1
    assert total(found, "stillwatch_fail_open_total", cause="snapshot_expired") == 1


def test_a_time_falls_into_its_bucket(demo: Scanned) -> None:
    metrics = Metrics(_Fixed(demo.snapshot, 0))
    decision = Decision(action="allow", would="allow", shadow=False, reason="nothing_known")
    for seconds in (*BUCKETS_S, 5.0):
        metrics.count(decision, seconds, "check")
    found = read(Exposition(GuardCollector(metrics)).text())
    for i, bound in enumerate(BUCKETS_S):
        assert total(found, "stillwatch_decision_seconds_bucket", le=str(float(bound))) == i + 1
    assert total(found, "stillwatch_decision_seconds_count") == len(BUCKETS_S) + 1


class _Ingest:
    events = {("file", "taken"): 7, ("file", "refused"): 1}  # noqa: RUF012
    lag_s = {"file": 2.5}  # noqa: RUF012


def test_what_comes_in_is_shown_too() -> None:
    found = read(Exposition(IngestCollector(_Ingest())).text())
    assert total(found, "stillwatch_ingest_events_total", source="file", state="taken") == 7
    assert total(found, "stillwatch_ingest_lag_seconds", source="file") == 2.5


def test_an_expired_snapshot_is_told_and_does_not_take_the_service_away(
    demo: Scanned, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = CheckService(_Fixed(demo.snapshot, 0), WHO)  # type: ignore[arg-type]
    until = demo.snapshot.meta.expires_us
    for now_us, status in ((until - 1, "ready"), (until, "expired")):
        monkeypatch.setattr("stillwatch.guard.doors.check.time.time_ns", lambda now_us=now_us: now_us * 1000)
        start, end = _ask(app, "/readyz", method="GET")
        assert (start["status"], json.loads(end["body"])["status"]) == (200, status)
