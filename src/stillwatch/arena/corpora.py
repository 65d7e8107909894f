"""Material and wording from a file of public request texts, recombined by the same composer.

The file is Parquet with the columns source, kind, template_id, prompt and lang. Prompts are drawn
without replacement (a fresh permutation once all are used) and never sent as they are: sentences of two or
three prompts are recombined and figures changed. Sentences that many prompts of a source repeat are its
template wording; they are removed from the material and become clauses of new templates.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.arena import vocabulary as V
from stillwatch.arena.text import LANGUAGES, BuiltinText, builtin_wording, edit, fill, resolve
from stillwatch.schema.errors import ColumnError, FormatError, Where

_COLUMNS = ("source", "kind", "template_id", "prompt", "lang")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。？！])|\n+")
_FIGURE = re.compile(r"\d+")
BOILERPLATE_PROMPTS = 5
"""A sentence in this many prompts of one source is template wording, not material."""
LONGEST_CHARS = 700


def _shift_figures(text: str, shift: int) -> str:
    """Replace every figure by another one of at most three digits."""
    return _FIGURE.sub(lambda match: str((int(match.group()[:6]) + shift) % 997), text)


class CorporaText:
    """Text recombined from a corpora file; other languages than English and Chinese come from the grammar."""

    def __init__(self, path: Path, seed: int) -> None:
        self._builtin = BuiltinText(seed)
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise FormatError(
                "the corpora file cannot be read as Parquet", where=Where(file=path.name)
            ) from error
        for column in _COLUMNS:
            if column not in table.column_names:
                raise ColumnError(
                    "the corpora file lacks a column", where=Where(file=path.name, column=column)
                )
        rows = table.select(list(_COLUMNS)).to_pylist()
        sentences = [
            [s.strip() for s in _SENTENCE.split((r["prompt"] or "")[:4000]) if s and s.strip()] for r in rows
        ]
        counts: Counter[tuple[str, str]] = Counter()
        for row, parts in zip(rows, sentences, strict=True):
            counts.update({(row["source"], p) for p in parts})
        harvest: dict[str, None] = {}
        honest: dict[str, None] = {}
        pools: dict[str, dict[tuple[str, ...], None]] = {"en": {}, "zh": {}}
        for row, parts in zip(rows, sentences, strict=True):
            own = []
            for part in parts:
                if counts[(row["source"], part)] >= BOILERPLATE_PROMPTS:
                    if 20 <= len(part) <= 240 and "<" not in part and row["template_id"]:
                        (harvest if row["kind"] == "attack" else honest)[part] = None
                else:
                    own.append(part)
            if row["lang"] in pools and sum(map(len, own)) >= 12:
                pools[row["lang"]][tuple(own[:12])] = None
        self._harvest = list(harvest)
        self._honest = list(honest)
        self._pools = {language: list(pool) for language, pool in pools.items()}
        self._order: dict[str, np.ndarray] = {language: np.zeros(0, dtype=np.int64) for language in pools}

    def _draw(self, rng: np.random.Generator, language: str, count: int) -> list[tuple[str, ...]]:
        pool = self._pools[language]
        while len(self._order[language]) < count:
            self._order[language] = np.concatenate((self._order[language], rng.permutation(len(pool))))
        taken, self._order[language] = self._order[language][:count], self._order[language][count:]
        return [pool[i] for i in taken.tolist()]

    def material(self, rng: np.random.Generator, languages: np.ndarray) -> list[str]:
        """See `stillwatch.arena.text.TextSource`."""
        out = [""] * len(languages)
        grammar = np.ones(len(languages), dtype=bool)
        for language, own_share in (("en", 0.95), ("zh", 0.5)):
            if len(self._pools[language]) < 50:
                continue
            rows = np.flatnonzero(
                (languages == LANGUAGES.index(language)) & (rng.random(len(languages)) < own_share)
            )
            grammar[rows] = False
            first, second = self._draw(rng, language, len(rows)), self._draw(rng, language, len(rows))
            draws = rng.integers(0, 1 << 30, (len(rows), 4)).tolist()
            openers, closers = V.WORDS[language]["opener"], V.WORDS[language]["closer"]
            for row, one, two, (d0, d1, d2, d3) in zip(rows.tolist(), first, second, draws, strict=True):
                begin = d0 % len(one)
                keep = list(one[begin : begin + 1 + d1 % 5])
                at = d2 % len(two)
                keep.insert(d3 % (len(keep) + 1), two[at])
                if sum(map(len, keep)) < 60:
                    keep.append(two[(at + 1) % len(two)])
                    keep.append(one[(begin - 1) % len(one)])
                if d0 % 11 == 0:
                    keep.insert(0, openers[d1 % len(openers)] + ",")
                if d0 % 13 == 0:
                    keep.append(closers[d1 % len(closers)])
                text = (" " if d2 % 5 else "\n").join(keep)[:LONGEST_CHARS]
                if d3 % 2:
                    text = _shift_figures(text, d2)
                out[row] = edit(d1 >> 3, d2 >> 3, text) if d3 % 13 == 0 else text
        rest = np.flatnonzero(grammar)
        for row, text in zip(rest.tolist(), self._builtin.material(rng, languages[rest]), strict=True):
            out[row] = text
        return out

    def terms(self, rng: np.random.Generator, count: int) -> list[str]:
        """See `stillwatch.arena.text.TextSource`."""
        return self._builtin.terms(rng, count)

    def wording(self, rng: np.random.Generator, *, harvest: bool) -> list[str]:
        """See `stillwatch.arena.text.TextSource`. Half the templates use found clauses, half are our own."""
        found = self._harvest if harvest else self._honest + self._harvest
        if len(found) < 10 or rng.random() < 0.5:
            return builtin_wording(rng, harvest=harvest)
        begin = int(rng.integers(len(found)))
        clauses = [found[(begin + i) % len(found)] for i in range(int(rng.integers(1, 5)))]
        tasks = V.HARVEST_TASKS if harvest else V.HONEST_TASKS
        bank = V.TASKS[tasks[int(rng.integers(len(tasks)))]]
        clauses.insert(
            int(rng.integers(len(clauses) + 1)), fill(rng, resolve(rng, bank[int(rng.integers(len(bank)))]))
        )
        return clauses
