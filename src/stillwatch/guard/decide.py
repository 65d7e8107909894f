"""One request in, one decision out: local arrays, counters in this process, nothing else.

Evidence is counted as a scan counts it. An account's bits follow from the keys that it has shown: the same keys, the
same snapshot, the same bits. What a request cannot show comes from the scan: what the accounts table says, and TIME.
With several workers each has seen a part, so that its bits are a lower bound until the next scan.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from stillwatch.detect.members import FEW, REPEATED
from stillwatch.guard.account import Account, Bits, Rows, view
from stillwatch.guard.kernel import find, measure
from stillwatch.guard.ladder import Fact, Ladder
from stillwatch.guard.lean import load_numba
from stillwatch.guard.recent import Recent, Sums, added_up, by_keys_of, owners_in, row_of
from stillwatch.guard.sight import Sight
from stillwatch.guard.snapshot import ROLES, VARIANTS, Snapshot
from stillwatch.guard.subject import ACCOUNT, HOURS, TIME, Decision, Subject
from stillwatch.schema.tables import SEPARATOR
from stillwatch.schema.times import LATEST_US, SECOND_US

LOG = logging.getLogger("stillwatch.guard")
MOST_ACCOUNTS = 100_000
"""Accounts whose counters are kept, about 1 KiB each. The one that was silent longest gives way: if it comes back, it
begins again with what the snapshot says of it."""
STRANGERS = 4
"""One in so many of them, besides, may be accounts that the scan did not see."""
REFUSES = frozenset({"challenge", "throttle", "block"})
"""Actions after which the request is not answered: it is no evidence."""


class Guard:
    """Decides about requests, by one snapshot. Safe for several threads; one decision at a time."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        history: bool = True,
        names: bool = True,
        clock: Callable[[], int] | None = None,
        most_accounts: int = MOST_ACCOUNTS,
    ) -> None:
        """`history`: go on from what the scan had seen of each account; False to replay that very log.

        `names`: act on those whom the scan names; False to ask what the campaigns' profiles alone would find.
        `clock`: microseconds since 1970, for requests without a time.
        """
        self.snapshot = snapshot
        self._history, self._names = history, names
        self._clock = clock or (lambda: time.time_ns() // 1000)
        self._most = most_accounts
        self.sight = Sight(snapshot)
        self._ladder = Ladder(snapshot)
        self._accounts: dict[int, Account] = {}
        self._strangers: dict[int, Account] = {}
        """Accounts that the scan did not see. A door may ask about credentials that nobody has checked yet: made-up
        ones must not drive out what is known of others."""
        self._lock = threading.Lock()
        self._niches = int(snapshot.arrays.niche_group.max(initial=-1)) + 1
        self._rows = Rows(snapshot.arrays)
        self._repeat = view(snapshot.arrays.key_repeat)
        self._split = snapshot.meta.form_places
        group = {g.id: i for i, g in enumerate(snapshot.meta.groups)}
        self._group_of = tuple(group[c.id] for c in snapshot.meta.campaigns)
        self._campaign_of = {g: c for c, g in enumerate(self._group_of)}
        self.found_bits = float(np.log2(max(1, len(self._group_of)) / snapshot.policy.found_risk))
        """Bits from which an account that no scan named counts as found. An honest account's e-value for one campaign
        ever exceeds x with probability at most 1/x (Ville's inequality): the policy's risk is shared out."""
        self.refusals = 0
        """Requests that Stillwatch refused: told by doors, or by this guard's own enforcement."""
        self.faults = 0
        """Requests that the guard could not decide about; they met what the policy says for that."""
        self.last_fault: str | None = None
        """Kind of the last one."""
        self.requests = 0
        self.forgotten = 0
        """Accounts that gave way to others."""
        self.lost = 0
        """Requests that a guard of a newer snapshot could not go on from, because too many came since its scan."""
        self._recent = Recent()
        self._carried: list[Sums] = []
        """What the guard before this one counted since this one's scan, for accounts that come again. As arrays: most
        never do, and made-up keys may be many."""

    def warm(self) -> None:
        """Compile everything that a request may need. Call it before the first request."""
        load_numba(for_compiling=True)
        measured = np.zeros(1, np.int16)
        place = np.zeros(0, np.int32)
        self._measure(place, 0, measured[:0], measured.astype(np.int64)[:0], np.zeros(0))
        find(self.snapshot.arrays.account_hash, 0, 0, np.uint64(1))
        find(self.snapshot.arrays.api_key_hash, 0, 0, np.uint64(1))
        text = "warm up the kernels"
        self.sight.look(Subject(prompt=text, system=text, ip="192.0.2.1", tools_hash=1), [])
        self.sight.look(
            Subject(body=b'{"messages": [{"role": "user", "content": "warm"}]}', ip="2001:db8::1"), []
        )

    def decide(self, subject: Subject) -> Decision:
        """What to do with one request. Never raises: a fault is counted, and the policy says what it means."""
        with self._lock:
            self.requests += 1
            try:
                return self._decide(subject)
            except Exception as error:
                # Whatever a caller sends, or this code gets wrong, must not become an error of the gateway's.
                return self._fault(error)

    def fault(self, error: BaseException) -> Decision:
        """What a request meets whose door failed before it could ask: counted, told, and as the policy says."""
        with self._lock:
            self.requests += 1
            return self._fault(error)

    def _fault(self, error: BaseException) -> Decision:
        self.faults += 1
        self.last_fault = type(error).__name__
        # The first, second, fourth, eighth...: a flood of faults is no flood of lines. The words of an error may hold
        # what a caller wrote.
        if self.faults & (self.faults - 1) == 0:
            with contextlib.suppress(Exception):
                LOG.error(
                    "fault %d of the guard: %s", self.faults, self.last_fault,
                    extra={"event": "fault", "fields": {"times": self.faults, "error_type": self.last_fault}},
                )  # fmt: skip
        return self._ladder.fault

    def idle(self, now_us: int) -> str | None:
        """Why nothing would be acted on at that time of the clock, None where something might."""
        return self._ladder.idle(now_us, TIME)

    def forked(self) -> None:
        """To be called in a forked process: another thread may have held the lock."""
        self._lock = threading.Lock()

    def bits(self, subject: Subject) -> dict[str, Bits]:
        """(FORM, LINK, TIME, all) of an account by campaign, as of the last request of it that was decided."""
        with self._lock:
            account = self._seen(self.principal(subject))
            names = self.snapshot.meta.campaigns
            return {} if account is None else {names[c].id: bits for c, bits in account.bits.items()}

    def streams(self, subject: Subject) -> dict[tuple[str, str], int]:
        """Exchanges of an account in the campaigns' own families, by (campaign, family): its streams."""
        names, keys = self.snapshot.meta.campaigns, self.snapshot.arrays.key_hash
        with self._lock:
            account = self._seen(self.principal(subject))
            if account is not None:
                self._recall(account)
            return {
                (names[campaign].id, f"{int(keys[place]):016x}"): count
                for place, count in (account.counts if account is not None else {}).items()
                for campaign in self.snapshot.streams.get(place, ())
            }

    def _seen(self, number: int) -> Account | None:
        account = self._accounts.get(number) or self._strangers.get(number)
        if account is None and any(row_of(sums, number) >= 0 for sums in self._carried):
            account = self._arrived(number)
            (self._accounts if account.row >= 0 else self._strangers)[number] = account
        return account

    def _decide(self, subject: Subject) -> Decision:
        lacked = 0
        now: Any = subject.ts_us
        if type(now) is not int or not 0 < now <= LATEST_US:
            now, lacked = self._clock(), TIME
        number = self.principal(subject)
        if number == 0:
            return self._ladder.allow("no_account", lacked | ACCOUNT)
        if subject.refused is True:
            return self.weigh(number, None, lacked, None, now)
        places: list[int] = []
        lacked |= self.sight.look(subject, places)
        gateway = subject.gateway if type(subject.gateway) is str else None
        fits = self.sight.fits
        decision = self.weigh(number, places, lacked, gateway, now)
        return self._ladder.told(decision, fits, now) if fits else decision

    def weigh(
        self, number: int, places: list[int] | None, lacked: int, gateway: str | None, now_us: int
    ) -> Decision:
        """What to do with a request whose keys are known. `places` None: Stillwatch refused it elsewhere.

        The part of `decide` that comes after looking; a replay looks at the whole log first. Not for two threads.
        """
        account = self._accounts.pop(number, None) or self._strangers.pop(number, None)
        changed = account is None
        if account is None:
            account = self._arrived(number)
        (self._accounts if account.row >= 0 else self._strangers)[number] = account
        if places is None:
            account.refused += 1
            self.refusals += 1
            if changed:
                self._judge(account)
            self._ladder.heard(account.facts, now_us)
            return self._ladder.allow("refused_before", lacked)
        if self._count(account, places, 1) or changed:
            self._judge(account)
        if not account.facts:
            self._recent.add(number, places, now_us)
            return self._ladder.allow("nothing_known", lacked)
        if account.unknown:
            lacked |= HOURS
        decision = self._ladder.choose(account, places, gateway, now_us, lacked)
        if decision.action in REFUSES:
            # It is not answered: what it showed is taken back.
            account.refused += 1
            self.refusals += 1
            if self._count(account, places, -1):
                self._judge(account)
        else:
            self._recent.add(number, places, now_us)
        return decision

    def follow(self, old: Guard, number: int = 0) -> int:
        """Count what `old` counted after this snapshot's scan, from its request `number` on; returns the next number.

        Keys that this snapshot does not know are left out: bits stay a lower bound. Called more than once while `old`
        goes on, then a last time by `succeed`.
        """
        with old._lock:
            end = old._recent.next
            # Results give the log's end to the second: what came later in it may have been scanned.
            since = old._recent.since(number, self.snapshot.meta.last_us + SECOND_US - 1)
        self.lost += since.lost
        since = by_keys_of(since, old.snapshot, self.snapshot)
        self._recent.extend(since)
        sums = added_up(since._replace(account=owners_in(self.snapshot, since.account)))
        with self._lock:
            self._carried.append(sums)
            for known in (*self._accounts.values(), *self._strangers.values()):
                self._catch_up(known, sums)
        return end

    def succeed(self, old: Guard, number: int) -> None:
        """Take over from `old`: what it counted since its request `number`, its totals, and whom it heard of."""
        self.follow(old, number)
        for name in ("requests", "refusals", "faults", "forgotten", "lost"):
            setattr(self, name, getattr(self, name) + getattr(old, name))
        self._ladder.inherit(old._ladder)

    def _catch_up(self, account: Account, sums: Sums) -> None:
        """Add what the guard before this one counted of an account: the bits depend on the sums alone."""
        row = row_of(sums, account.hash)
        if row < 0:
            return
        account.volume += int(sums.volume[row])
        begin, end = np.searchsorted(sums.of, (row, row + 1)).tolist()
        for place, count in zip(sums.place[begin:end].tolist(), sums.uses[begin:end].tolist(), strict=True):
            account.counts[place] = account.counts.get(place, 0) + count
            for campaign in self.snapshot.touches.get(place, ()):
                account.near(campaign)
        if account.campaigns:
            self._recall(account)
        self._judge(account)

    def _count(self, account: Account, places: list[int], step: int) -> bool:
        """Count one exchange in or out; whether the account's keys are others now."""
        before = account.volume
        account.volume = before + step
        few_before, few = before <= FEW, account.volume <= FEW
        counts, repeat, touches = account.counts, self._repeat, self.snapshot.touches
        changed = few_before != few and any(c < REPEATED and repeat[p] for p, c in counts.items())
        for place in places:
            had = counts.get(place, 0)
            has = had + step
            if has > 0:
                counts[place] = has
            else:
                del counts[place]
            if repeat[place]:
                changed |= (had > 0 and (few_before or had >= REPEATED)) != (
                    has > 0 and (few or has >= REPEATED)
                )
            else:
                changed |= (had > 0) != (has > 0)
            if had == 0 and place in touches:
                for campaign in touches[place]:
                    account.near(campaign)
                changed = True
                if account.past:
                    self._recall(account)
                    counts = account.counts
        return changed

    def _judge(self, account: Account) -> None:
        """Measure the account's bits anew, and what follows from them."""
        if not account.campaigns and not account.named:
            return
        if account.campaigns:
            few, repeat = account.volume <= FEW, self._repeat
            held = sorted(p for p, c in account.counts.items() if few or c >= REPEATED or not repeat[p])
            places = np.array(held, np.int32)
            split = int(np.searchsorted(places, self._split))
            campaigns = list(account.campaigns)
            judged = list(account.campaigns.values())
            out = self._measure(
                places,
                split,
                np.array(campaigns, np.int16),
                np.array([variant for variant, _ in judged], np.int64),
                np.array([bits for _, bits in judged], np.float64),
            )
            account.bits = dict(zip(campaigns, map(tuple, out.tolist()), strict=True))
        facts = []
        named = set()
        for group, role, bits in account.named:
            campaign = self._campaign_of.get(group, -1)
            live = account.bits.get(campaign)
            # The counters of one worker are a lower bound: the scan saw everything.
            best = live if live is not None and not live[3] < bits[0] else (*bits[1:], bits[0])
            facts.append(Fact(group, campaign, role, best))
            named.add(campaign)
        if not account.named and not account.excused:
            for campaign, live in account.bits.items():
                if live[3] >= self.found_bits:
                    facts.append(Fact(self._group_of[campaign], campaign, "found", live))
        account.facts = tuple(facts)

    def _measure(self, places: Any, split: int, campaigns: Any, variants: Any, hours: Any) -> Any:
        a = self.snapshot.arrays
        out = np.zeros((len(campaigns), 4))
        measure(
            places, split, campaigns, variants, hours, a.key_share, a.niche_offsets, a.niche_group, a.niche_share,
            a.profile_offsets, a.profile_place, a.profile_null, a.profile_share, self._niches, VARIANTS, out,
        )  # fmt: skip
        return out

    def principal(self, subject: Subject) -> int:
        """Keyed hash of whoever is judged, 0 where the door does not know."""
        name: Any = subject.account
        secret, a = self.snapshot.secret, self.snapshot.arrays
        if type(name) is str and name:
            user: Any = subject.end_user
            if (
                subject.end_user_verified is True
                and subject.gateway is not None
                and type(user) is str
                and user
            ):
                name = f"{name}{SEPARATOR}{user}"
            return secret.account(name)
        digest: Any = subject.api_key_sha256
        key: Any = subject.api_key
        if type(key) is str and key:
            digest = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
        if type(digest) is not str or not digest:
            return 0
        number = secret.api_key(digest)
        row = find(a.api_key_hash, 0, len(a.api_key_hash), np.uint64(number))
        # A key that the snapshot does not know stands for itself.
        return int(a.api_key_account[row]) if row >= 0 else number

    def _arrived(self, number: int) -> Account:
        """Counters of an account that this process did not see before, or has forgotten."""
        account = self._begun(number)
        for sums in self._carried:
            self._catch_up(account, sums)
        return account

    def _begun(self, number: int) -> Account:
        """Counters as the snapshot has them."""
        a, rows, touches = self.snapshot.arrays, self._rows, self.snapshot.touches
        row = find(a.account_hash, 0, len(a.account_hash), np.uint64(number))
        kept, most = (self._accounts, self._most) if row >= 0 else (self._strangers, self._most // STRANGERS)
        if len(kept) >= most:
            kept.pop(next(iter(kept), 0), None)
            self.forgotten += 1
        account = Account(number, row)
        if row < 0:
            return account
        account.excused = rows.excused[row] != 0
        begin, end = rows.held[row], rows.held[row + 1]
        places = rows.place[begin:end].tolist()
        if self._history:
            account.volume = rows.volume[row]
            account.past = True
        else:
            given = rows.given[begin:end].tolist()
            places = [place for place, g in zip(places, given, strict=True) if g]
            account.counts = dict.fromkeys(places, 1)
        begin, end = rows.measured_at[row], rows.measured_at[row + 1]
        if begin < end:
            hours = rows.hours[begin:end].tolist()
            variants = [fold + 1 for fold in rows.fold[begin:end].tolist()]
            account.campaigns = dict(
                zip(rows.measured[begin:end].tolist(), zip(variants, hours, strict=True), strict=True)
            )
        for place in places:
            if place in touches:
                for campaign in touches[place]:
                    account.near(campaign)
        begin, end = rows.named_at[row], rows.named_at[row + 1]
        if begin < end and self._names:
            account.named = tuple(
                (group, ROLES[role], tuple(bits))
                for group, role, bits in zip(
                    a.named_group[begin:end].tolist(),
                    a.named_role[begin:end].tolist(),
                    a.named_bits[begin:end].tolist(),
                    strict=True,
                )
            )
            for group, _, _ in account.named:
                if group in self._campaign_of:
                    account.near(self._campaign_of[group])
        if account.campaigns:
            self._recall(account)
        return account

    def _recall(self, account: Account) -> None:
        """Add what the scan counted to what was seen since."""
        if not account.past:
            return
        account.past = False
        rows, row = self._rows, account.row
        begin, end = rows.held[row], rows.held[row + 1]
        since = account.counts
        account.counts = dict(
            zip(rows.place[begin:end].tolist(), rows.count[begin:end].tolist(), strict=True)
        )
        for place, count in since.items():
            account.counts[place] = account.counts.get(place, 0) + count
