"""`report.html` of a bundle: what a lawyer reads, on the screen or printed. One file that needs no network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from stillwatch.evidence.bundle.alternatives import NO
from stillwatch.report import words
from stillwatch.report.charts import activity

MOST_ACCOUNTS = 60
TAGS = {
    "observed": "Counted in the log of the operator's service. Whoever has the log counts the same.",
    "inferred": "Follows from a statistical test of what was observed. Its p says how often chance would look so.",
    "likely": "A judgement on what was inferred: the best explanation that was found, after others were tested.",
}
WAYS = (
    ("Bits of an account in FORM (what its requests look like) and LINK (what it shares), and its bits in all",
     "Computed again by verify.py from the keyed counts in counts.json."),
    ("p of the views, of the direct tests and of the score",
     "Computed again by verify.py from null values, counts and reference scores in vectors.json."),
    ("q of the claims", "Computed again by verify.py from all p of the run."),
    ("Numbers of accounts and requests, text and bits of the evidence",
     "Committed to the transparency log before: verify.py checks the digest, and that they add up. By replay, where "
     "the log is."),
    ("Bits in TIME (when an account is active); null values, reference scores, and who has which key",
     "By replay, where the log is: `stillwatch evidence replay`."),
    ("That the log is what happened", "Stated by the operator."),
)  # fmt: skip


def page(docs: Mapping[str, Any], predicate: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    """The whole page. `docs`: the JSON files, parsed; `files`: those that are there already."""
    finding, said = docs["finding.json"], docs["chapters.json"]
    group, run = finding["group"], finding["run"]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Evidence: campaign {escape(group['id'])}</title><style>{_style()}</style></head><body><main>",
        _head(group, run, predicate),
        "<h2>What is claimed, and how sure it is</h2>",
        _claims(group),
        "<h2>What speaks against it</h2>",
        _against(group, said),
        "<h2>Other explanations that were tested</h2>",
        _alternatives(said["alternatives"]["statements"]),
        f"<h2>The evidence</h2><p class='soft small'>In the order in which {escape(said['statute'])} lets purpose be "
        "inferred.</p>",
        _activity(group, run),
        "".join(_chapter(chapter) for chapter in said["chapters"]),
        "<h2>The accounts</h2>",
        _accounts(docs["accounts.json"]["members"]),
        "<h2>What could not be seen</h2>",
        _sight(run),
        "<h2>Chain of custody</h2>",
        _table(
            ("from", "to", "how, and who can check it"),
            [
                (s["from"], s["to"], f"{_code(s['how'])} <b>{_upper(_code(s['who']))}.</b>")
                for s in said["custody"]
            ],
            raw=2,
        ),
        "<h2>How to check it</h2>",
        _check(predicate, files),
        "</main></body></html>\n",
    ]
    return "".join(parts)


def _style() -> str:
    report = resources.files("stillwatch.report").joinpath("report.css").read_text(encoding="utf-8")
    return report + resources.files("stillwatch.evidence.bundle").joinpath("page.css").read_text(
        encoding="utf-8"
    )


def _code(text: str) -> str:
    """Text in which `this` is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _tag(name: str) -> str:
    return f"<span class='t {name}'>{name}</span>"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _head(group: Mapping[str, Any], run: Mapping[str, Any], predicate: Mapping[str, Any]) -> str:
    days = sum(n > 0 for n in group["activity"])
    facts = "".join(
        f"<div><b>{number:,}</b>{name}</div>"
        for number, name in (
            (group["accounts"], "accounts"),
            (group["exchanges"], "requests"),
            (group["harvest_exchanges"], "in its own templates"),
            (days, "days active"),
        )
    )
    rows = "".join(
        f"<tr><td><span class='t {tag}'>{tag}</span></td><td>{text}</td></tr>" for tag, text in TAGS.items()
    )
    partner = f", for {escape(predicate['partner'])}" if predicate["partner"] else ""
    return (
        f"<p class='over'>Evidence bundle of {escape(predicate['at'][:10])}{partner}</p>"
        "<h1>Unauthorised coordinated harvesting</h1>"
        f"<p class='lede'>The claim: {words.plural(group['accounts'], 'account')} of one AI "
        f"service acted as one from "
        f"{words.span(group['first_ts'], group['last_ts'])}, to harvest its model's answers, while they were made to "
        "look unrelated. This document says how that is known, how sure it is, and what speaks against it. Who is "
        "behind the accounts it does not say.</p>"
        f"<div class='facts'>{facts}</div>"
        f"<p class='soft small'>Campaign <code>{escape(group['id'])}</code>, in the log of "
        f"{words.span(run['first_ts'], run['last_ts'])}, which has {run['accounts']:,} accounts and "
        f"{run['exchanges']:,} requests. Accounts stand under pseudonyms. Every statement says what it is:</p>"
        f"<table class='plain legend3'>{rows}</table>"
    )


def _claims(group: Mapping[str, Any]) -> str:
    out = []
    for claim in group["claims"]:
        tag = "likely" if claim["name"] == "harvest_like" else "inferred"
        numbers = [f"{n} = {words.p_value(claim[n])}" for n in ("p", "q") if claim[n] is not None]
        if claim["references"]:
            numbers.append(f"compared with {claim['references']} groups known to be honest")
        checked = " Computed again by verify.py." if claim["p"] is not None else ""
        out.append(
            f"<div class='claim{' yes' if claim['holds'] else ''}'>"
            f"<div class='q'>{escape(words.CLAIMS.get(claim['name'], claim['name']))}</div>"
            f"<div class='a'>{'Yes' if claim['holds'] else 'Not shown'} <span class='t {tag}'>{tag}</span></div>"
            f"<div>{escape(claim['text'])}</div>"
            f"<div class='soft small'>{', '.join(numbers)}.{checked}</div></div>"
        )
    return (
        f"<div class='claims'>{''.join(out)}</div><p class='soft small'>p: how often groups that "
        f"are not what is claimed "
        "would look like this one by chance. q: the share of false groups to be expected among "
        "all that the run names "
        "at this level.</p>"
    )


def _against(group: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    parts = group["counter_evidence"]
    other = [s for s in said["alternatives"]["statements"] if s["outcome"] == "in part"]
    if not parts and not other:
        return "<p>Nothing that was looked for.</p>"
    rows = "".join(
        f"<li>{escape(part['text'])}"
        + (f" <span class='soft'>{words.bits(part['bits'])} bits</span>" if part["bits"] else "")
        + "</li>"
        for part in sorted(parts, key=lambda e: (e["bits"], e["signal"]))
    )
    return (
        "<p>All that was looked for and not found, and all that points the other way. Observed; committed to the log "
        f"with the finding.</p><ul class='list'>{rows}</ul>"
    )


def _alternatives(statements: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            s["name"],
            f"<span class='out{'' if s['outcome'] == NO else ' left'}'>{_upper(escape(s['outcome']))}</span>",
            s["text"],
        )
        for s in statements
    ]
    return _table(("explanation", "outcome", "what was tested"), rows, raw=1)


def _chapter(chapter: Mapping[str, Any]) -> str:
    return f"<h3>{escape(chapter['title'])}</h3>{''.join(_statement(s) for s in chapter['statements'])}"


def _statement(statement: Mapping[str, Any]) -> str:
    numbers = [f"{n['name']} {_number(n)}" for n in statement["numbers"] if n["name"] in ("p", "q", "bits")]
    note = "; ".join([*numbers, statement["checked"]])
    note = note if numbers and not numbers[0].startswith("bits") else _upper(note)
    return (
        f"<div class='says {statement['side']}'><span>{_tag(statement['tag'])}</span>"
        f"<p>{escape(statement['text'])}</p><span class='soft'>{note}.</span></div>"
    )


def _number(number: Mapping[str, Any]) -> str:
    return words.bits(number["value"]) if number["name"] == "bits" else f"= {words.p_value(number['value'])}"


def _activity(group: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    bans = []
    for event in group["timeline"]:
        if event["kind"] == "sanction":
            number = re.match(r"\d+", event["text"])
            bans.append((event["ts"], int(number.group()) if number else 1))
    return activity(group["activity"], run["first_ts"], [(r["ts"], r["text"]) for r in run["releases"]], bans)


def _accounts(members: Sequence[Mapping[str, Any]]) -> str:
    ranked = sorted(members, key=lambda row: (-(row["e_bits"] or 0.0), row["account"]))
    cells = "".join(
        f"<tr><td class='acc'><code>{escape(row['account'])}</code></td><td>{escape(row['role'])}</td>"
        + "".join(
            f"<td class='n'>{'–' if row[name] is None else words.bits(row[name])}</td>"
            for name in ("e_bits", "form", "link", "time")
        )
        + f"<td class='n'>{row['exchanges']:,}</td></tr>"
        for row in ranked[:MOST_ACCOUNTS]
    )
    more = (
        f" {len(ranked) - MOST_ACCOUNTS:,} more are in accounts.json." if len(ranked) > MOST_ACCOUNTS else ""
    )
    return (
        "<div class='tall'><table><thead><tr><th>pseudonym</th><th>role</th><th class='n'>bits</th>"
        "<th class='n'>form</th><th class='n'>link</th><th class='n'>time</th><th "
        "class='n'>requests</th></tr></thead>"
        f"<tbody>{cells}</tbody></table></div>"
        "<p class='soft small'>Bits weigh how much better an account fits the group than the public, or any group of "
        "honest accounts: 10 bits are a thousand to one. In all, the strongest kind of evidence is left out, so that "
        f"none acts alone. They rank the accounts; they are no guarantee for a single one.{more}</p>"
    )


def _sight(run: Mapping[str, Any]) -> str:
    poor = [s for s in run["sight"] if s["state"] != "on"]
    if not poor:
        return "<p>Every detector had what it needs.</p>"
    return _table(
        ("detector", "state", "because"),
        [
            (s["detector"], f"<i class='dot {s['state']}'></i>{words.STATES[s['state']]}", s["reason"])
            for s in poor
        ],
        raw=1,
    )


def _check(predicate: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(files["verify.py"]).hexdigest()
    digests = "".join(
        f"<tr><td>{escape(name)}</td><td><code>{hashlib.sha256(files[name]).hexdigest()}</code></td></tr>"
        for name in sorted(files)
        if name != "rows.jsonl"
    )
    rows = predicate["rows"]
    return (
        "<p>Anybody can check this bundle, offline, with Python and its package "
        "<code>cryptography</code>. The public "
        "keys are those that the operator publishes; without them the check says that everything fits together, not "
        "whose it is.</p>"
        "<pre class='cmd'>unzip BUNDLE.zip verify.py\npython verify.py BUNDLE.zip --signer KEY --vkey KEY</pre>"
        "<p>A verifier that comes with the evidence could have been made to agree with it. Its "
        "SHA-256 must be the published "
        f"one:</p><pre class='cmd'>{digest}</pre>"
        + _table(("number", "how it is checked"), WAYS)
        + f"<p class='small'>The bundle shows {rows['count']:,} of {rows['eligible']:,} rows that "
        f"the claims rest on, "
        "chosen by a keyed hash. Any of them can be taken out without harm to the proofs; "
        "verify.py says how many were. "
        "No row is of an account that the finding does not name.</p>"
        f"<p class='small'>Signed by <code>{escape(predicate['signer'])}</code>; transparency log "
        f"<code>{escape(predicate['log']['vkey'])}</code>.</p>"
        "<div class='scroll'><table class='plain digest'><thead><tr><th>file</th><th>SHA-256</th></tr></thead>"
        f"{digests}</table></div>"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], raw: int = -1) -> str:
    """A table of text; column `raw` holds markup."""
    body = "".join(
        "<tr>"
        + "".join(f"<td>{cell if at == raw else _code(cell)}</td>" for at, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    three = " three" if len(heads) == 3 else ""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"<table class='plain wrap{three}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
