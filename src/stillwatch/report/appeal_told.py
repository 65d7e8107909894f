"""What an account is told that was acted on and asks why. A text of its own, made from a record that holds no more.

It says why in plain words, which period and which kinds of evidence, what can clear the account, how to reach a
person and what happens meanwhile. It says nothing about any other account, about how anything is measured, about how
much of it there is, or about the campaign: `Told` has no place for them, so that two accounts that differ in those
alone are told the same, byte for byte.
"""

from __future__ import annotations

import textwrap
import tomllib
from html import escape
from pathlib import Path
from typing import Annotated

import msgspec

from stillwatch.report import words
from stillwatch.report.explain import printable
from stillwatch.schema.errors import InputError, Where

WIDTH = 78
MOST_BYTES = 64 << 10
KINDS = {
    "FORM": "the form of its requests",
    "LINK": "how the account was opened, is paid for and reaches us",
    "TIME": "when it is used",
}
"""Kinds only: which feature of them, and how much of it, would teach how not to be found."""
ACTIONS = {
    "challenge": "Requests of this account may meet a check.",
    "throttle": "Requests of this account may be slowed down.",
    "strip": "Answers to this account may come without reasoning and without log-probabilities.",
    "mark": "Answers to this account may be marked.",
    "block": "Requests of this account may be refused.",
}
UNKNOWN = "Requests of this account may be slowed down or refused."
NOTHING = "Nothing is restricted at the moment."
CLEARS = (
    (
        "You have an agreement with us that permits this use, or you are a registered reseller or gateway",
        "the name of the agreement, or of the person at our side.",
    ),
    (
        "Several accounts belong to one organisation, and this is one of them",
        "its name and registration, a web domain that it controls, and somebody whom we can ask there.",
    ),
    (
        "It is an evaluation or a benchmark",
        "what is evaluated, the set of tasks that is run, since when and until when, and where results are shown.",
    ),
    (
        "It is a class, a course or a workshop",
        "the institution, the dates, about how many take part, and who teaches.",
    ),
    (
        "Somebody else pays for it, an employer, a university or a sponsor",
        "an invoice, or a line from whoever pays.",
    ),
    ("You use software or wording that others use, too", "its name, and where one gets it."),
    (
        "You share a connection with people whom you do not know: a dormitory, an office, a VPN, a cloud provider",
        "which one, and since when.",
    ),
    (
        "It was not you: somebody else may have had your password or a key",
        "since when; and make new keys now.",
    ),
    ("You bought the account, or access to it, from somebody else", "from whom, and the receipt."),
)
"""What may clear an account, each with what to send. The same for everybody: it tells nothing about what was seen."""
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
Days = Annotated[int, msgspec.Meta(ge=1, le=3650)]


class Letter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator says in its own name; a TOML file."""

    service: Text = "our service"
    contact: Text = (
        "Answer this message, or write to the address that it came from. A person reads it, not a program."
    )
    appeal_days: Days = 183
    """How long an appeal is possible. Six months are the least for online platforms in the European Union (Digital
    Services Act, article 20)."""
    answer_days: Days = 14
    meanwhile: Text = (
        "Until the answer, what is said above stays as it is, and nothing is added to it. Tell us if that does harm "
        "which cannot wait: the person who reads it can lift the restriction at once."
    )
    also: str = ""
    """One more paragraph, for example about courts and out-of-court bodies."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """All that the text is made from."""

    account: str
    acted: bool
    """Whether a campaign names it. Leads, cleared groups and strangers are told the same."""
    kinds: tuple[str, ...] = ()
    """Kinds of evidence that speak for this account, in the order of `KINDS`."""
    first: str | None = None
    last: str | None = None
    """Days of its own first and last request that was looked at, ISO 8601."""
    action: str | None = None
    """The strongest action that may be taken now; empty: none; None: not known."""
    reference: str | None = None
    letter: Letter = Letter()


def read_letter(path: Path) -> Letter:
    """The operator's own words from a TOML file. InputError where it cannot be used."""
    where = Where(path.name)
    try:
        with path.open("rb") as handle:
            data = handle.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise InputError("the letter is larger than 64 KiB", where=where)
        return msgspec.convert(tomllib.loads(data.decode()), Letter)
    except OSError as error:
        raise InputError(f"the letter cannot be read: {error.strerror}", where=where) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError("the letter is no TOML", where=where, hint="see docs/appeals.md") from error
    except msgspec.ValidationError as error:
        raise InputError(f"the letter cannot be used: {error}", where=where) from error


def _paragraphs(told: Told) -> list[tuple[str, list[str]]]:
    """(heading, paragraphs) in their order; paragraphs that begin with `- ` are points of a list."""
    letter = told.letter
    if not told.acted:
        return [
            (
                "What we found",
                [
                    f"Nothing that {letter.service} checks for unauthorised coordinated harvesting restricts this "
                    "account. If requests are refused or slowed down, that has another cause.",
                ],
            ),
            ("How to reach a person", [letter.contact]),
        ]
    why = (
        f"This account was used, as far as we can tell, as one of several that together collect answers of "
        f"{letter.service} in bulk, without permission, as material to train another model. We call that "
        "unauthorised coordinated harvesting. It is a conclusion about how accounts work together. It does "
        "not rest on how much you use, on any single request, on where you are, or on the language that you write."
    )
    if told.first is None or told.last is None:
        period = "It rests on recent requests of the account."
    elif told.first == told.last:
        period = f"It rests on requests of the account on {words.day(told.first, year=True)} (UTC)."
    else:
        period = f"It rests on requests of the account from {words.span(told.first, told.last)} (UTC)."
    kinds = [f"- {KINDS[name]}" for name in told.kinds] or [
        "- more than one kind; ask, and a person tells you which"
    ]
    now = UNKNOWN if told.action is None else ACTIONS.get(told.action, NOTHING)
    quote = "" if told.reference is None else f" Quote the reference {told.reference}."
    answer = (
        f"You can appeal within {letter.appeal_days} days of this message. A person who did not take the "
        f"decision looks at everything that there is about this account, and answers within "
        f"{letter.answer_days} days. If we were wrong, the restriction is lifted at once, it is not put back "
        "on the same evidence, and whoever was told about the account is told that we were wrong. If we "
        "think that we were right, you are told what was considered."
    )
    return [
        ("Why", [why]),
        ("Which period", [period]),
        (
            "What kinds of evidence",
            ["Together, and never one of them alone:", *kinds],
        ),
        ("What it means now", [now]),
        (
            "What can clear the account",
            [
                "Any of these, if it is so. Send what you have; we check it ourselves. Do not send prompts "
                "or answers.",
                *(f"- {title}. Send: {text}" for title, text in CLEARS),
                "If it is something else, say it in your own words.",
            ],
        ),
        ("How to reach a person", [letter.contact + quote]),
        ("What happens then, and until when", [answer, letter.meanwhile]),
        (
            "What we do not say",
            [
                "Which other accounts there are, and how exactly it is seen, is not told to anybody outside: "
                "those who do this would learn from it. The person who decides about your appeal sees all of it.",
                *([letter.also] if letter.also else []),
            ],
        ),
    ]


def told_text(told: Told) -> str:
    """The text, ending in a newline."""
    lines = [f"About the account {printable(told.account)}"]
    for heading, paragraphs in _paragraphs(told):
        lines += ["", heading]
        for paragraph in paragraphs:
            point = paragraph.startswith("- ")
            lines.append(
                textwrap.fill(
                    printable(paragraph),
                    WIDTH,
                    initial_indent="  ",
                    subsequent_indent="    " if point else "  ",
                    break_on_hyphens=False,
                )
            )
    return "\n".join(lines) + "\n"


def told_html(told: Told) -> str:
    """The same as the inside of a page's `<main>`."""
    parts = [f"<h1>About your account</h1><p class='soft'><code>{escape(printable(told.account))}</code></p>"]
    for heading, paragraphs in _paragraphs(told):
        parts.append(f"<h3>{escape(heading)}</h3>")
        points: list[str] = []
        for paragraph in [*paragraphs, ""]:
            if paragraph.startswith("- "):
                title, mark, rest = paragraph[2:].partition(". Send: ")
                send = f".<br><span class='soft'>Send: {escape(rest)}</span>" if mark else ""
                points.append(f"<li>{escape(title)}{send}</li>")
                continue
            if points:
                parts.append(f"<ul class='list'>{''.join(points)}</ul>")
                points = []
            if paragraph:
                parts.append(f"<p>{escape(printable(paragraph))}</p>")
    return "".join(parts)


def told_plain(told: Told) -> dict[str, object]:
    """The same for JSON: what the text says, and no more."""
    return {
        "account": told.account,
        "acted": told.acted,
        "reference": told.reference if told.acted else None,
        "paragraphs": [{"heading": heading, "text": text} for heading, text in _paragraphs(told)],
    }
