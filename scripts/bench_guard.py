"""How fast the guard decides, and what it needs: `make bench-guard`. Prints each figure beside its goal.

The snapshot is made up, of the size that the goals name: 1 M accounts with eight keys each, 100 campaigns of 200
members, 200,000 prompt families, 100 honest groups. Requests hold 2 KB of text; four in five are of accounts drawn as
a busy day has them (Zipf), the others of members and of accounts that nobody knows. Every account's first request is
among the timed ones. The same requests go three times through a fresh guard: `undisturbed` is the least of the three
times of each request, which leaves out most of what other programs on the machine take; beside it stands a loop that
does nothing, as a measure of how disturbed the machine is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

SECRET = b"a secret of the benchmark, no other"
ACCOUNTS, CAMPAIGNS, MEMBERS, FAMILIES, HONEST = 1_000_000, 100, 200, 200_000, 100
FORM, LINK, HELD, OWN = 400_000, 600_000, 8, 40
REQUESTS, BYTES, PASSES, SWAPS = 100_000, 2048, 3, 3
DAY_US = 86_400_000_000
START_US = 1_772_000_000_000_000
GOALS = {
    "decide_us_p50": 25.0, "decide_us_p99": 100.0, "load_s": 1.0, "rss_mib_loaded": 500.0, "rss_mib_end": 500.0,
    "swap_s": 1.0, "swap_slowest_ms": 10.0,
}  # fmt: skip


def words(rng: np.random.Generator) -> np.ndarray:
    """A vocabulary of made-up words."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return np.array(["".join(rng.choice(letters, rng.integers(3, 10))) for _ in range(20_000)])


def text(rng: np.random.Generator, vocabulary: np.ndarray, size: int) -> str:
    """About `size` bytes of them."""
    return " ".join(vocabulary[rng.integers(0, len(vocabulary), size // 7)])[:size]


def make(path: Path, accounts: int) -> None:
    """Write the snapshot."""
    import pyarrow as pa

    from stillwatch.guard import Secret
    from stillwatch.guard.heed import heed
    from stillwatch.guard.policy import SHADOW
    from stillwatch.guard.snapshot import VARIANTS, Listed, Meta, save
    from stillwatch.sketch import sketch_text
    from stillwatch.views.families import needed, posting_table

    rng = np.random.default_rng(1)
    secret = Secret(SECRET)
    hashes = np.array([secret.account(f"account-{i}") for i in range(accounts)], np.uint64)
    order = np.argsort(hashes)
    row_of = np.empty(accounts, np.int64)
    row_of[order] = np.arange(accounts)
    places = FORM + LINK
    key_hash = np.concatenate([np.sort(rng.integers(1, 2**64, n, np.uint64)) for n in (FORM, LINK)])
    share = 1.0 / (1 + rng.permutation(places)) ** 0.8
    share /= share.sum()
    # Families: those of the campaigns' templates, and others with postings of their own.
    vocabulary = words(rng)
    templates = [text(rng, vocabulary, 400) for _ in range(CAMPAIGNS)]
    sketch = sketch_text(pa.array(templates))
    posting = [sketch.post[sketch.post_offsets[i] : sketch.post_offsets[i + 1]] for i in range(CAMPAIGNS)]
    posting += list(rng.integers(1, 2**64, (FAMILIES - CAMPAIGNS, 8), np.uint64))
    family = np.repeat(np.arange(FAMILIES, dtype=np.int32), [len(p) for p in posting])
    posts, first = np.unique(np.concatenate(posting), return_index=True)
    family = family[first]
    of_member = (np.arange(CAMPAIGNS * MEMBERS) // MEMBERS).astype(np.int16)
    member_row = row_of[: CAMPAIGNS * MEMBERS]
    # Keys: eight at random each; members besides hold some of their campaign's own forty.
    own = np.concatenate(
        [np.arange(CAMPAIGNS)[:, None], rng.integers(FAMILIES, FORM, (CAMPAIGNS, OWN // 2 - 1)),
         FORM + rng.integers(0, LINK, (CAMPAIGNS, OWN // 2))], axis=1,
    )  # fmt: skip
    who = np.concatenate([np.repeat(np.arange(accounts), HELD), np.repeat(member_row, 12)])
    theirs = own[np.repeat(of_member, 12), rng.integers(0, OWN, len(member_row) * 12)]
    what = np.concatenate([rng.choice(places, accounts * HELD, p=share), theirs])
    pairs = np.unique(who * places + what)
    who, what = pairs // places, pairs % places
    profile = [np.sort(part) for c in range(CAMPAIGNS) for part in (own[c, : OWN // 2], own[c, OWN // 2 :])]
    profile = [np.unique(part) for part in profile for _ in range(VARIANTS)]
    lengths = np.array([len(part) for part in profile])
    profile_place = np.concatenate(profile)
    touched = np.unique(np.stack([own.ravel(), np.repeat(np.arange(CAMPAIGNS), OWN)], axis=1), axis=0)
    drawn = np.sort(rng.choice(places, (HONEST, 60), p=share), axis=1)
    niche = np.unique(np.stack([drawn.ravel(), np.repeat(np.arange(HONEST), 60)], axis=1), axis=0)

    def offsets(code: np.ndarray, n: int) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(np.bincount(code, minlength=n))]).astype(np.int64)

    by_row = np.argsort(member_row)
    arrays = {
        "account_hash": hashes[order],
        "account_volume": rng.integers(1, 300, accounts).astype(np.int32),
        "account_excused": np.zeros(accounts, np.uint8),
        "account_tier": np.zeros(accounts, np.int16),
        "account_contract": np.full(accounts, -1, np.int16),
        "account_owner": np.full(accounts, -1, np.int32),
        "held_offsets": offsets(who, accounts),
        "held_place": what.astype(np.int32),
        "held_count": np.full(len(what), 3, np.uint8),
        "held_given": np.zeros(len(what), np.uint8),
        "named_offsets": offsets(member_row, accounts),
        "named_group": of_member[by_row].astype(np.int32),
        "named_role": np.zeros(len(by_row), np.uint8),
        "named_bits": np.tile([8.0, 9.0, 8.0, 1.0], (len(by_row), 1)),
        "measured_offsets": offsets(member_row, accounts),
        "measured_campaign": of_member[by_row],
        "measured_fold": (np.arange(len(by_row)) % 4).astype(np.int8),
        "measured_time": rng.normal(size=len(by_row)),
        "key_hash": key_hash,
        "key_share": share,
        "key_repeat": (np.arange(places) < FAMILIES).astype(np.uint8),
        "prompt_table": posting_table(posts),
        "prompt_family": family,
        "prompt_place": np.arange(FAMILIES, dtype=np.int32),
        "prompt_need": needed(posts, family, FAMILIES),
        "system_table": posting_table(posts[:0]),
        "system_family": family[:0],
        "system_place": family[:0],
        "system_need": needed(posts[:0], family[:0], 0),
        "niche_offsets": offsets(niche[:, 0], places),
        "niche_group": niche[:, 1].astype(np.int32),
        "niche_share": np.full(len(niche), 1 / 60),
        "profile_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "profile_place": profile_place.astype(np.int32),
        "profile_null": share[profile_place],
        "profile_share": np.full(len(profile_place), 1 / OWN),
        "touch_offsets": offsets(touched[:, 0], places),
        "touch_campaign": touched[:, 1].astype(np.int16),
        "stream_offsets": offsets(np.arange(CAMPAIGNS), FORM),
        "stream_campaign": np.arange(CAMPAIGNS, dtype=np.int16),
        "api_key_hash": np.sort(rng.integers(1, 2**64, accounts, np.uint64)),
        "api_key_account": hashes,
        **heed(())[1],
        "exit_first": np.zeros(0, np.int64),
        "exit_last": np.zeros(0, np.int64),
    }
    groups = tuple(
        Listed(id=f"g-{i:012x}", verdict="campaign", why=None, last_us=START_US) for i in range(CAMPAIGNS)
    )
    meta = Meta(
        program="bench", results="0" * 64, seed=0, first_us=START_US - 14 * DAY_US, last_us=START_US,
        expires_us=START_US + 14 * DAY_US, form_places=FORM, campaigns=groups, groups=groups, tiers=("free",),
        contracts=(), owners=(), policy=SHADOW, policy_name="shadow", decisions=(), decisions_head="0" * 64,
    )  # fmt: skip
    save(path, meta, arrays, secret)
    (path.parent / "templates.json").write_text(json.dumps(templates))


def rss_mib(field: str) -> float:
    """`VmRSS` or `VmHWM` of this process."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1]) / 1024


def measure(path: Path, accounts: int, requests: int) -> dict[str, float]:
    """Load, warm up and decide, in this process."""
    began = time.perf_counter()
    from stillwatch.guard import Guard, Secret, Subject, load

    imported = time.perf_counter() - began
    rss_imported = rss_mib("VmRSS")
    began = time.perf_counter()
    snapshot = load(path, Secret(SECRET))
    loaded = time.perf_counter() - began
    rss = rss_mib("VmRSS")
    began = time.perf_counter()
    Guard(snapshot).warm()
    warm = time.perf_counter() - began
    rss_warm = rss_mib("VmRSS")
    rng = np.random.default_rng(2)
    vocabulary = words(rng)
    templates = json.loads((path.parent / "templates.json").read_text())
    plain = [text(rng, vocabulary, BYTES) for _ in range(500)]
    harvest = [(t + " " + text(rng, vocabulary, BYTES))[:BYTES] for t in templates]
    kind = rng.random(requests)
    busy = np.minimum(rng.zipf(1.15, requests), 1 << 40)
    home = rng.integers(0, 255, (requests, 3))
    member = rng.integers(0, CAMPAIGNS * MEMBERS, requests)
    rss_before = rss_mib("VmRSS")
    passes, still = [], np.zeros(requests, np.int64)
    for _ in range(PASSES):
        guard = Guard(snapshot)
        took, first, seen = np.zeros(requests, np.int64), np.zeros(requests, bool), set[str]()
        for i in range(requests):
            if kind[i] < 0.8:
                number = CAMPAIGNS * MEMBERS + busy[i] % (accounts - CAMPAIGNS * MEMBERS)
                name, prompt = f"account-{number}", plain[i % 500]
            elif kind[i] < 0.95:
                name, prompt = f"account-{member[i]}", harvest[member[i] // MEMBERS]
            else:
                name, prompt = f"unknown-{i}", plain[i % 500]
            a, b, c = home[busy[i] % requests].tolist()
            # A text that has just arrived: nothing about it is remembered by the interpreter.
            fresh, ip = prompt.encode().decode(), f"{11 + a % 180}.{b}.{c}.7"
            subject = Subject(account=name, prompt=fresh, ip=ip, tools_hash=5, ts_us=START_US + 1000 * i)
            first[i] = name not in seen
            seen.add(name)
            start = time.perf_counter_ns()
            for _ in range(400):
                pass
            still[i] = time.perf_counter_ns() - start
            start = time.perf_counter_ns()
            guard.decide(subject)
            took[i] = time.perf_counter_ns() - start
        passes.append(took)
        if guard.faults:
            raise SystemExit(f"{guard.faults} faults")
    took = np.concatenate(passes)
    least = np.min(passes, axis=0) / 1000
    harvested = (kind >= 0.8) & (kind < 0.95)
    us = took / 1000
    return {
        "decide_us_p50": float(np.quantile(us, 0.5)),
        "decide_us_p99": float(np.quantile(us, 0.99)),
        "decide_us_p999": float(np.quantile(us, 0.999)),
        "empty_loop_us_p50": float(np.quantile(still / 1000, 0.5)),
        "empty_loop_us_p99": float(np.quantile(still / 1000, 0.99)),
        "undisturbed_us_p50": float(np.quantile(least, 0.5)),
        "undisturbed_us_p99": float(np.quantile(least, 0.99)),
        "undisturbed_first_of_account_us_p50": float(np.quantile(least[first], 0.5)),
        "undisturbed_first_of_account_us_p99": float(np.quantile(least[first], 0.99)),
        "undisturbed_later_us_p50": float(np.quantile(least[~first], 0.5)),
        "undisturbed_later_us_p99": float(np.quantile(least[~first], 0.99)),
        "undisturbed_harvest_us_p50": float(np.quantile(least[harvested], 0.5)),
        "undisturbed_harvest_us_p99": float(np.quantile(least[harvested], 0.99)),
        "load_s": loaded,
        "import_s": imported,
        "warm_s": warm,
        "rss_mib_imported": rss_imported,
        "rss_mib_loaded": rss,
        "rss_mib_warm": rss_warm,
        "rss_mib_before_requests": rss_before,
        "rss_mib_end": rss_mib("VmRSS"),
        "anonymous_mib_end": rss_mib("RssAnon"),
        "rss_mib_peak": rss_mib("VmHWM"),
        "file_mib": path.stat().st_size / 2**20,
        "accounts_seen": float(len(seen)),
    }


def swap(path: Path, accounts: int, requests: int) -> dict[str, float]:
    """A snapshot takes over while another thread decides at about half load, by the same file under a new date."""
    from stillwatch.guard import Secret, Subject
    from stillwatch.guard.doors.watched import Watched

    watching = Watched(path, Secret(SECRET), every_s=3600)
    rng = np.random.default_rng(3)
    vocabulary = words(rng)
    texts = [text(rng, vocabulary, BYTES) for _ in range(500)]
    names = [f"account-{n}" for n in rng.integers(0, accounts, requests).tolist()]
    took = {False: [0], True: [0]}
    swapping = threading.Event()
    done = threading.Event()

    def decide(count: int | None) -> None:
        i = 0
        while i < (1 << 40 if count is None else count) and not done.is_set():
            subject = Subject(
                account=names[i % requests], prompt=texts[i % 500], tools_hash=5, ts_us=START_US + 10**7
            )
            inside = swapping.is_set()
            start = time.perf_counter_ns()
            watching.guard.decide(subject)
            took[inside].append(time.perf_counter_ns() - start)
            i += 1
            if count is None:
                # About half of what one process can decide: without any pause two threads share one interpreter.
                time.sleep(0.0002)

    decide(requests)
    took[False] = [0]
    before = watching.guard.requests
    seconds = []
    for _ in range(SWAPS):
        done.clear()
        thread = threading.Thread(target=decide, args=(None,))
        thread.start()
        time.sleep(1.0)
        os.utime(path)
        swapping.set()
        began = time.perf_counter()
        if not watching.look():
            raise SystemExit(f"no swap: {watching.problem}")
        seconds.append(time.perf_counter() - began)
        swapping.clear()
        done.set()
        thread.join()
    watching.close()
    alone = []
    for array in (took[False], took[True]):
        alone.append(np.array(array) / 1e6)
    return {
        "swap_s": float(np.median(seconds)),
        "swap_slowest_ms": float(alone[1].max()),
        "swap_p999_ms": float(np.quantile(alone[1], 0.999)),
        "no_swap_slowest_ms": float(alone[0].max()),
        "no_swap_p999_ms": float(np.quantile(alone[0], 0.999)),
        "swap_carried_requests": float(before),
        "swap_decisions_meanwhile": float(len(alone[1])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--keep", type=Path, help="folder for the snapshot; used again if it is there")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--swap", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure is not None:
        print(json.dumps(measure(asked.measure, asked.accounts, asked.requests)))
        return
    if asked.swap is not None:
        print(json.dumps(swap(asked.swap, asked.accounts, asked.requests)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = (asked.keep or Path(folder)) / "snapshot"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path, asked.accounts)
        # A process of its own: what making the snapshot took is none of the guard's.
        found: dict[str, float] = {}
        for part in ("--measure", "--swap"):
            command = [sys.executable, __file__, part, str(path)]
            command += ["--accounts", str(asked.accounts), "--requests", str(asked.requests)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found |= json.loads(done.stdout)
    for name, value in found.items():
        goal = f"   goal {GOALS[name]:g}, ratio {value / GOALS[name]:.2f}" if name in GOALS else ""
        print(f"{name:36} {value:12.2f}{goal}")


if __name__ == "__main__":
    main()
