"""Templates for a chosen task, in several languages or without instructions, for operations and honest kinds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stillwatch.arena import vocabulary as V
from stillwatch.arena.text import Template, TextSource, fill, new_template, resolve
from stillwatch.arena.vocabulary_tasks import ELICIT, RUBRICS, TASKS_IN
from stillwatch.arena.world import World


def _one(rng: np.random.Generator, patterns: tuple[str, ...], language: str = "en") -> str:
    return fill(rng, resolve(rng, patterns[int(rng.integers(len(patterns)))]), language)


@dataclass(frozen=True)
class Themed:
    """A text source whose templates are about one task; all other wording is that of honest programs."""

    base: TextSource
    task: str
    abroad: float = 0.0
    """Share of wordings in another language than English."""
    rubric: float = 0.0
    """Share of wordings with a grading rule."""

    def material(self, rng: np.random.Generator, languages: np.ndarray) -> list[str]:
        """See `stillwatch.arena.text.TextSource`."""
        return self.base.material(rng, languages)

    def terms(self, rng: np.random.Generator, count: int) -> list[str]:
        """See `stillwatch.arena.text.TextSource`."""
        return self.base.terms(rng, count)

    def wording(self, rng: np.random.Generator, *, harvest: bool) -> list[str]:
        """See `stillwatch.arena.text.TextSource`; `harvest` makes no difference here."""
        if self.abroad and rng.random() < self.abroad:
            language = list(TASKS_IN)[int(rng.integers(len(TASKS_IN)))]
            bank = TASKS_IN[language].get(self.task, TASKS_IN[language]["reasoning"])
            return [_one(rng, bank, language)]
        clauses = [c for c in self.base.wording(rng, harvest=False) if "<a>" not in c]
        clauses.insert(int(rng.integers(min(2, len(clauses)) + 1)), _one(rng, V.TASKS[self.task]))
        if self.rubric and rng.random() < self.rubric:
            clauses.append(_one(rng, RUBRICS))
        return clauses


def elicit_line(world: World) -> str:
    """One line that asks for reasoning."""
    return _one(world.rng, ELICIT)


def bare_template() -> Template:
    """No instructions at all: the material is the request."""
    return Template(
        variants=((("", "p"), ("", "")),), slots_a=("",), slots_b=("",), in_system=False, system=None
    )


def line_template(line: str, *, after: bool) -> Template:
    """Free material with one fixed line after or before it."""
    parts = (("", "p"), (f"\n\n{line}", "")) if after else ((f"{line}\n\n", "p"), ("", ""))
    return replace(bare_template(), variants=(parts,))


def reworded(world: World, source: TextSource, count: int, slots: tuple[int, int]) -> Template:
    """A template with `count` wordings, each composed anew."""
    first = new_template(world.rng, source, harvest=False, slots=slots, system_share=0.0)
    variants = list(first.variants)
    while len(variants) < count:
        variants.extend(
            new_template(
                world.rng, source, harvest=False, variants=2, slots=(1, 1), system_share=0.0
            ).variants
        )
    return replace(first, variants=tuple(variants[: max(1, count)]))


def recased(rng: np.random.Generator, template: Template, share: float) -> Template:
    """A share of the wordings in lower case, capitals or with capitals at every word."""
    variants = []
    for variant in template.variants:
        change = (str.lower, str.upper, str.title)[int(rng.integers(3))] if rng.random() < share else str
        variants.append(tuple((change(literal), slot) for literal, slot in variant))
    return replace(template, variants=tuple(variants))


def data_set(
    world: World, count: int, *, slots: tuple[int, int] = (1, 1)
) -> tuple[tuple[int, int, str], ...]:
    """`count` items (slot a, slot b, material), mostly English, all different."""
    rng = world.rng
    found: dict[str, None] = {}
    while len(found) < count:
        languages = np.where(rng.random(count) < 0.85, 0, rng.integers(0, 6, count))
        found.update(dict.fromkeys(world.source.material(rng, languages)))
    a, b = rng.integers(0, slots[0], count).tolist(), rng.integers(0, slots[1], count).tolist()
    return tuple((x, y, text) for x, y, text in zip(a, b, list(found)[:count], strict=True))
