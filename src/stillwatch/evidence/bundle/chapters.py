"""`chapters.json`: what the evidence says, in the order in which H.R. 8283, section 3(11)(B), has purpose inferred.

Each statement is tagged *observed* (counted in the log), *inferred* (follows from a test) or *likely* (a judgement on
what is inferred), and names the numbers that it rests on by where they stand in the bundle, so that `verify.py`
compares them. Its `checked` says who can check them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stillwatch.evidence.bundle.alternatives import alternatives

STATUTE = "H.R. 8283, section 3(11)(B)"
CHAPTERS = (
    ("volume", "Volume"),
    ("structure", "Structure of the requests"),
    ("pattern", "Pattern"),
    ("coordination", "Coordination"),
    ("timing", "Timing"),
    ("capabilities", "Concentration on capabilities"),
    ("accounts", "Coordinated use of accounts"),
    ("timeline", "Correlation with another model's timeline"),
)
OF_SIGNAL = {
    "work_split": "pattern",
    "probing": "pattern",
    "fan_out": "accounts",
    "signup_batch": "accounts",
    "handover": "coordination",
    "replay": "coordination",
    "takeover": "timing",
    "flat_hours": "timing",
    "moving_load": "timing",
    "TIME": "timing",
    "full_throttle": "volume",
    "pivot": "timeline",
    "FORM": "structure",
    "LINK": "accounts",
}
OF_KIND = {
    "FORM": "structure",
    "LINK": "accounts",
    "TIME": "timing",
    "TRACE": "capabilities",
    "FANOUT": "accounts",
    "PARTNER": "structure",
}
Statement = dict[str, Any]
TAKES: dict[str, Callable[[Any], Any]] = {
    "value": lambda found: found,
    "sum": sum,
    "max": max,
    "length": len,
    "days": lambda found: sum(n > 0 for n in found),
}
"""As in `verify.py`."""


class Numbers:
    """Looks numbers up in the bundle's files, so that statements cannot say others."""

    def __init__(self, docs: Mapping[str, Any]) -> None:
        self._docs = docs

    def __call__(self, name: str, place: str, take: str = "value") -> dict[str, Any]:
        """A number with where it stands: `file#/json/pointer`."""
        file, _, pointer = place.partition("#")
        found: Any = self._docs[file]
        for step in pointer.split("/")[1:]:
            found = found[int(step)] if isinstance(found, list) else found[step]
        return {"name": name, "from": place, "take": take, "value": TAKES[take](found)}


def checked(numbers: Sequence[Mapping[str, Any]], quotes: Sequence[str]) -> str:
    """Who can check the weakest of what a statement rests on; empty if that is nothing in the bundle."""
    places = [number["from"] for number in numbers] or list(quotes)
    if not places:
        return ""
    if all(
        place.endswith(("/p", "/q")) or place.startswith(("vectors.json", "accounts.json"))
        for place in places
    ):
        return "computed again by verify.py"
    return "committed to the log before; computed again by replay, where the log is"


def said(
    tag: str,
    text: str,
    numbers: Sequence[Mapping[str, Any]] = (),
    side: str = "for",
    quotes: Sequence[str] = (),
    rests_on: str = "stated by the operator",
) -> Statement:
    """One statement. `quotes`: where sentences in it stand word for word. `rests_on`: if on no number or quote."""
    return {
        "tag": tag,
        "text": text,
        "numbers": list(numbers),
        "quotes": list(quotes),
        "side": side,
        "checked": checked(numbers, quotes) or rests_on,
    }


def chapters(docs: Mapping[str, Any]) -> dict[str, Any]:
    """The file's content. `docs`: finding.json, accounts.json and vectors.json, parsed."""
    number, group = Numbers(docs), docs["finding.json"]["group"]
    by_chapter: dict[str, list[Statement]] = {name: [] for name, _ in CHAPTERS}
    _volume(by_chapter["volume"], number, group)
    _claims(by_chapter, number, group)
    for side, parts in (("for", group["evidence"]), ("against", group["counter_evidence"])):
        place = "evidence" if side == "for" else "counter_evidence"
        for at, part in enumerate(parts):
            chapter = OF_SIGNAL.get(part["signal"]) or OF_KIND.get(part["kind"])
            if chapter is None:
                # What speaks against the whole is among the other explanations.
                continue
            at_bits, at_text = (f"finding.json#/group/{place}/{at}/{name}" for name in ("bits", "text"))
            bits = [number("bits", at_bits)] if part["bits"] else []
            aside = "context" if part["kind"] == "CONTEXT" else side
            by_chapter[chapter].append(said("observed", part["text"], bits, aside, [at_text]))
    _capabilities(by_chapter["capabilities"], group)
    _timeline(by_chapter["timeline"], group)
    return {
        "statute": STATUTE,
        "chapters": [
            {
                "id": name,
                "title": title,
                "statements": by_chapter[name] or [said("observed", "Nothing was found that belongs here.")],
            }
            for name, title in CHAPTERS
        ],
        "alternatives": {"statements": alternatives(number, docs, said)},
    }


def _volume(out: list[Statement], number: Numbers, group: Mapping[str, Any]) -> None:
    first, last = group["first_ts"][:10], group["last_ts"][:10]
    own = group["harvest_exchanges"]
    out.append(
        said(
            "observed",
            f"{group['accounts']:,} accounts sent {group['exchanges']:,} requests from {first} to {last}"
            + (f", {own:,} of them in templates that are the campaign's own." if own else "."),
            [
                number("accounts", "finding.json#/group/accounts"),
                number("requests", "finding.json#/group/exchanges"),
                number("requests in its own templates", "finding.json#/group/harvest_exchanges"),
                number("accounts listed", "accounts.json#/members", "length"),
            ],
        )
    )
    days, most = (
        number("days", "finding.json#/group/activity", "days"),
        number("most on a day", "finding.json#/group/activity", "max"),
    )
    out.append(
        said(
            "observed",
            f"They were active on {days['value']} days, at most {most['value']:,} requests on one.",
            [days, most],
        )
    )
    out.append(
        said(
            "observed",
            "No account was singled out by how much it sent: volume is no evidence in this method.",
            (),
            "context",
        )
    )


def _claims(by_chapter: Mapping[str, list[Statement]], number: Numbers, group: Mapping[str, Any]) -> None:
    """The three claims: the chapters that they conclude."""
    for at, claim in enumerate(group["claims"]):
        chapter = {"coordinated": "coordination", "one_director": "accounts", "harvest_like": "structure"}[
            claim["name"]
        ]
        tag = "likely" if claim["name"] == "harvest_like" else "inferred"
        numbers = [
            number(n, f"finding.json#/group/claims/{at}/{n}") for n in ("p", "q") if claim[n] is not None
        ]
        lead = {
            "coordinated": "The accounts are coordinated.",
            "one_director": "One hidden director stands behind the accounts.",
            "harvest_like": "What is asked for is what a model is trained on.",
        }[claim["name"]]
        text = f"{lead if claim['holds'] else 'Not shown: ' + lead} {claim['text']}"
        quotes = [f"finding.json#/group/claims/{at}/text"]
        by_chapter[chapter].append(said(tag, text, numbers, "for" if claim["holds"] else "against", quotes))


def _capabilities(out: list[Statement], group: Mapping[str, Any]) -> None:
    named = [name.replace("_", " ") for name in group["capabilities"]]
    if named:
        out.insert(
            0,
            said(
                "observed",
                f"At least a tenth of the requests in its own templates ask for: {', '.join(named)}.",
            ),
        )
    else:
        out.append(
            said(
                "observed",
                "No capability is asked for by a tenth of the requests in its own templates.",
                (),
                "against",
            )
        )


def _timeline(out: list[Statement], group: Mapping[str, Any]) -> None:
    for at, event in enumerate(group["timeline"]):
        if event["kind"] == "release":
            text = f"{event['text']} It was on {event['ts'][:10]}, while the campaign was active."
            out.append(said("observed", text, (), "context", [f"finding.json#/group/timeline/{at}/text"]))
    if not any(event["kind"] == "release" for event in group["timeline"]):
        out.append(
            said(
                "observed",
                "The log names no release of another model while the campaign was active.",
                (),
                "context",
            )
        )
