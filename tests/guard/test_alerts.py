"""The alert rules ask for metrics that are there, and Prometheus takes them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from stillwatch.guard.doors.access_log import AccessLog
from stillwatch.guard.doors.fetch import Fetched
from stillwatch.guard.doors.metrics import Metrics
from stillwatch.guard.doors.prometheus import Exposition, GuardCollector, IngestCollector, ScanCollector
from stillwatch.guard.doors.rotated import Rotated
from stillwatch.guard.watch.service import Counters
from tests.guard.conftest import SECRET, Scanned
from tests.guard.test_doors import WHO, _Fixed
from tests.guard.test_metrics import _Ingest
from tests.servers.programs import ROOT, installed

RULES = ROOT / "docs" / "alerts.yml"


def test_rules_ask_for_metrics_that_are_there(demo: Scanned, tmp_path: Path) -> None:
    metrics = Metrics(_Fixed(demo.snapshot, 0))
    log = AccessLog(Rotated(tmp_path / "rows"), WHO, SECRET)
    log.close()
    metrics.tallies += [log.tally(), Fetched("http://127.0.0.1:1/", SECRET, cache=tmp_path).tally()]
    guard = GuardCollector(metrics)
    text = Exposition(guard, IngestCollector(_Ingest()), ScanCollector(Counters())).text().decode()
    shown = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    asked = {name for rule in group["rules"] for name in re.findall(r"stillwatch_\w+", rule["expr"])}
    assert len(asked) >= 6
    assert {name.removesuffix("_bucket") for name in asked} <= shown


@pytest.mark.server
def test_prometheus_takes_the_rules() -> None:
    promtool: Path = installed("promtool", "STILLWATCH_PROMTOOL", "sudo apt-get install prometheus")
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
