"""Text sources and the one composer that honest and hostile requests share.

A `TextSource` yields *material* (what a person writes), *terms* (short slot values) and instruction
*wording* for templates. Material for every kind of account comes from the same pools; what differs between
groups is only which template wraps it, as in the logs that the generator imitates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stillwatch.arena import vocabulary as V

LANGUAGES = ("en", "zh", "ja", "es", "de", "pt")
_SLOT = re.compile(
    r"<(topic2|topic|noun|adj|person|Person|place|do|time|num2|num|small2|small|word2|word|Word|domain)>"
)
_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_PLAIN = re.compile(r"[^a-z]+")


class TextSource(Protocol):
    """Where request text comes from. Every method is a pure function of the source and the generator."""

    def material(self, rng: np.random.Generator, languages: np.ndarray) -> list[str]:
        """One piece of user material per entry of `languages` (int codes into `LANGUAGES`)."""
        ...

    def terms(self, rng: np.random.Generator, count: int) -> list[str]:
        """`count` distinct short phrases, the values of one template slot."""
        ...

    def wording(self, rng: np.random.Generator, *, harvest: bool) -> list[str]:
        """Instruction clauses of one new template; one of them holds the slots `<a>` and `<b>`."""
        ...


@dataclass(frozen=True)
class Template:
    """Instruction text around material. `variants[v]` holds (literal, slot) parts, slot a, b, p or ''."""

    variants: tuple[tuple[tuple[str, str], ...], ...]
    slots_a: tuple[str, ...]
    slots_b: tuple[str, ...]
    in_system: bool
    """The instruction travels as the system prompt; the user turn carries only slots and material."""
    system: str | None

    def render(self, variant: int, a: str, b: str, material: str) -> str:
        """The user turn for one item."""
        out = []
        for literal, slot in self.variants[variant % len(self.variants)]:
            out.append(literal)
            if slot:
                out.append(a if slot == "a" else b if slot == "b" else material)
        return "".join(out)


def resolve(rng: np.random.Generator, pattern: str) -> str:
    """Settle every `[x|y]` alternative of a pattern at random."""

    def pick(match: re.Match[str]) -> str:
        options = match.group(1).split("|")
        return options[int(rng.integers(len(options)))]

    return _CHOICE.sub(pick, pattern)


def fill(rng: np.random.Generator, pattern: str, language: str = "en") -> str:
    """Fill the named slots of a pattern (those that are not the template slots a, b and p)."""
    words = V.WORDS[language]

    def pick(match: re.Match[str]) -> str:
        name = match.group(1)
        base = name.rstrip("2").lower()
        if base == "num":
            return str(int(rng.integers(3, 900)))
        if base == "small":
            return str(int(rng.integers(2, 13)))
        if base == "word":
            topics = V.WORDS["en"]["topic"]
            word = _PLAIN.sub("_", topics[int(rng.integers(len(topics)))])
            return word.capitalize() if name == "Word" else word
        options = V.DOMAINS if base == "domain" else words[base]
        value = options[int(rng.integers(len(options)))]
        return value[:1].upper() + value[1:] if name[0].isupper() else value

    return _SLOT.sub(pick, pattern)


def split_slots(text: str) -> tuple[tuple[str, str], ...]:
    """Cut rendered wording at its `<a>`, `<b>` and `<p>` slots."""
    pieces = re.split(r"<([abp])>", text)
    parts = [(pieces[i], pieces[i + 1]) for i in range(0, len(pieces) - 1, 2)]
    return (*parts, (pieces[-1], ""))


def new_template(
    rng: np.random.Generator,
    source: TextSource,
    *,
    harvest: bool,
    variants: int = 1,
    slots: tuple[int, int] = (40, 40),
    system_share: float = 0.5,
) -> Template:
    """Compose one template: wording from the source, then label and material.

    `variants` > 1 gives paraphrases: clauses are reordered, one may be dropped, labels change.
    """
    clauses = source.wording(rng, harvest=harvest)
    in_system = bool(rng.random() < system_share)
    label = V.LABELS[int(rng.integers(len(V.LABELS)))]
    built = []
    for index in range(max(1, variants)):
        head = list(clauses)
        if index:
            head = source.wording(rng, harvest=harvest) if rng.random() < 0.3 else head
            order = rng.permutation(len(head))
            head = [head[i] for i in order]
            if len(head) > 3 and rng.random() < 0.5:
                plain = [i for i, c in enumerate(head) if "<a>" not in c]
                head.pop(plain[int(rng.integers(len(plain)))])
        joiner = " " if rng.random() < 0.6 else "\n"
        if in_system:
            slotted = [c for c in head if "<a>" in c][:1]
            body = slotted[0]
        else:
            body = joiner.join(head)
        tail = f"\n\n{label}: <p>" if rng.random() < 0.8 else "\n<p>"
        built.append(split_slots(body + tail))
    system = None
    if in_system:
        plain_clauses = [c for c in clauses if "<a>" not in c]
        system = " ".join(plain_clauses)
    return Template(
        variants=tuple(built),
        slots_a=tuple(source.terms(rng, slots[0])),
        slots_b=tuple(source.terms(rng, slots[1])),
        in_system=in_system,
        system=system,
    )


_LOOKALIKE_LETTERS = str.maketrans({"a": "а", "e": "е", "o": "о", "c": "с", "p": "р"})


def disguise(rng: np.random.Generator, text: str) -> str:
    """Evasive spelling: look-alike letters in one stretch, or zero-width characters between words."""
    if rng.random() < 0.5:
        start = int(rng.integers(max(1, len(text) // 2)))
        return text[:start] + text[start : start + 40].translate(_LOOKALIKE_LETTERS) + text[start + 40 :]
    return text.replace(" ", "\u200b ", 6)


def edit(choice: int, place: int, text: str) -> str:
    """A small human slip (swapped or doubled letter, lower case, lost full stop), honest and hostile."""
    if len(text) < 12:
        return text
    at = 2 + place % min(len(text) - 4, 60)
    kind = choice % 4
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    if kind == 2:
        return text[:80].lower() + text[80:]
    return text[:-1] if text[-1] in ".?!。？" else text


Compiled = tuple[tuple[str, tuple[str, ...] | None], ...]


class BuiltinText:
    """Material from our own grammar: combinatorially large, in six languages, no data files."""

    def __init__(self, seed: int) -> None:
        order = np.random.default_rng([seed, 11])
        numbers = tuple(str(n) for n in order.permutation(np.arange(3, 3000))[:1200])
        small = tuple(str(n) for n in range(2, 13))
        self._patterns: list[list[Compiled]] = []
        self._openers: list[tuple[str, ...]] = []
        self._closers: list[tuple[str, ...]] = []
        for language in LANGUAGES:
            words = V.WORDS[language]
            plain = tuple(_PLAIN.sub("_", t) for t in V.WORDS["en"]["topic"])
            lists: dict[str, tuple[str, ...]] = {
                **words,
                "num": numbers,
                "small": small,
                "word": plain,
                "Person": tuple(w[:1].upper() + w[1:] for w in words["person"]),
            }
            compiled = []
            for pattern in V.PATTERNS[language]:
                pieces = _SLOT.split(pattern)
                parts: list[tuple[str, tuple[str, ...] | None]] = [
                    (pieces[i], lists[pieces[i + 1].rstrip("2")]) for i in range(0, len(pieces) - 1, 2)
                ]
                parts.append((pieces[-1], None))
                compiled.append(tuple(parts))
            self._patterns.append(compiled)
            self._openers.append(words["opener"])
            self._closers.append(words["closer"])

    def material(self, rng: np.random.Generator, languages: np.ndarray) -> list[str]:
        """See `TextSource`. One to about ten sentences, greetings and closings on a share of them."""
        count = len(languages)
        sentences = np.minimum(
            1 + rng.geometric(0.42, count) + (rng.random(count) < 0.06) * rng.integers(2, 8, count), 14
        )
        manner = rng.integers(0, 1 << 30, (count, 2))
        draws = rng.integers(0, 1 << 30, (int(sentences.sum()), 8))
        draw_rows = draws.tolist()
        manner_rows = manner.tolist()
        out: list[str] = []
        position = 0
        for code, n, (m0, m1) in zip(languages.tolist(), sentences.tolist(), manner_rows, strict=True):
            patterns = self._patterns[code]
            pieces: list[str] = []
            if m0 % 7 == 0:
                openers = self._openers[code]
                pieces.append(openers[m1 % len(openers)] + ("," if code not in (1, 2) else "，"))
            for row in draw_rows[position : position + n]:
                text = []
                for index, (literal, options) in enumerate(patterns[row[0] % len(patterns)]):
                    text.append(literal)
                    if options is not None:
                        text.append(options[row[index + 1] % len(options)])
                pieces.append("".join(text))
            position += n
            if m0 % 11 == 0:
                closers = self._closers[code]
                pieces.append(closers[m1 % len(closers)])
            joined = ("" if code in (1, 2) else "\n" if m1 % 9 == 0 else " ").join(pieces)
            out.append(edit(m0 >> 4, m1 >> 4, joined) if m0 % 13 == 0 else joined)
        return out

    def terms(self, rng: np.random.Generator, count: int) -> list[str]:
        """See `TextSource`."""
        topics, adjectives, nouns = (V.WORDS["en"][k] for k in ("topic", "adj", "noun"))
        found: dict[str, None] = {}
        while len(found) < count:
            adjective = adjectives[int(rng.integers(len(adjectives)))]
            topic = topics[int(rng.integers(len(topics)))]
            noun = nouns[int(rng.integers(len(nouns)))]
            found[
                topic
                if rng.random() < 0.2
                else f"{adjective} {topic}"
                if rng.random() < 0.5
                else f"{topic} {noun}"
            ] = None
        return list(found)

    def wording(self, rng: np.random.Generator, *, harvest: bool) -> list[str]:
        """See `TextSource`."""
        return builtin_wording(rng, harvest=harvest)


def builtin_wording(rng: np.random.Generator, *, harvest: bool) -> list[str]:
    """Role, task, a few rules and an output clause, every alternative settled at random."""
    tasks = V.HARVEST_TASKS if harvest else V.HONEST_TASKS
    bank = V.TASKS[tasks[int(rng.integers(len(tasks)))]]
    clauses = [bank[int(rng.integers(len(bank)))]]
    if rng.random() < 0.7:
        clauses.insert(0, V.ROLES[int(rng.integers(len(V.ROLES)))])
    for index in rng.permutation(len(V.RULES))[: int(rng.integers(0, 5))]:
        clauses.append(V.RULES[int(index)])
    if rng.random() < 0.6:
        clauses.append(V.OUTPUTS[int(rng.integers(len(V.OUTPUTS)))])
    return [fill(rng, resolve(rng, clause)) for clause in clauses]
