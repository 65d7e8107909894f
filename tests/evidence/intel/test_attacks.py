"""Attacks on fingerprints, carried out: what a partner, a guesser, an outsider and a collector can learn.

docs/intel.md has the table; each bound here is one that it states.
"""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.arena.text import BuiltinText, builtin_wording
from stillwatch.evidence.intel.fingerprints import Wording, fingerprint, hashes_of
from stillwatch.schema.intel import HASH_HEX, FamilyFingerprint
from stillwatch.sketch.fold import basic_plane, mathematical
from stillwatch.sketch.kernel import shingle, tokens_of
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.store.told import keyed
from tests.evidence.intel.conftest import SECRET, postings_of

OURS = Pseudonyms("0a0a0a0a", "fingerprint", SECRET)
GUESSED = Pseudonyms("0b0b0b0b", "fingerprint", SECRET[::-1])
NOTHING = np.zeros(0, np.uint64)
WORDS = 2_000
"""Words of the language in which a template is made up; the attacker knows them all."""


def tokens(text: str) -> np.ndarray:
    data = np.frombuffer(text.encode(), np.uint8)
    out, spans = np.empty(len(data) + 2, np.uint64), np.zeros((1, 2), np.int64)
    count, _, _ = tokens_of(data, 0, len(data), basic_plane(), mathematical(), out, spans, False)
    return out[:count].copy()


def made_up(seed: int, length: int) -> tuple[list[str], list[int]]:
    """(the language's words, a template as numbers of them)."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnoprstuvw"))
    words = sorted({"".join(rng.choice(letters, 6)) for _ in range(WORDS)})
    return words, rng.integers(0, len(words), length).tolist()


def print_of(text: str, names: Pseudonyms = OURS) -> FamilyFingerprint:
    made = fingerprint(
        [Wording("prompt", postings_of(text), np.arange(10), [])], np.arange(10), names, NOTHING
    )
    assert made is not None
    return made


def share(made: FamilyFingerprint, text: str, names: Pseudonyms = OURS) -> float:
    """Share of the hashes that a text holds."""
    held = {f"{h:0{HASH_HEX}x}" for h in hashes_of(names, postings_of(text)).tolist()}
    return len(held & set(made.hashes)) / len(made.hashes)


@pytest.fixture(scope="module")
def language() -> tuple[list[str], list[int], FamilyFingerprint]:
    words, template = made_up(1, 60)
    return words, template, print_of(" ".join(words[w] for w in template))


def chain(
    words: list[str], known: tuple[int, int], hashes: set[int], names: Pseudonyms, bits: int, steps: int
) -> tuple[int, int]:
    """Grow a text word by word from two that are known: (texts that fit after `steps`, words tried).

    The attacker keeps every text whose last three words have a hash in the fingerprint.
    """
    name = np.array([tokens(w)[0] for w in words], np.uint64)
    alive, tried = [known], 0
    for _ in range(steps):
        grown = []
        for one, two in alive[:50]:
            made = np.array([shingle(name[one], name[two], n) for n in name], np.uint64)
            tried += len(made)
            short = names_hash(names, made) >> np.uint64(64 - bits)
            grown += [
                (two, int(w)) for w in np.flatnonzero(np.isin(short, np.array(sorted(hashes), np.uint64)))
            ]
        alive = grown
    return len(alive), tried


def names_hash(names: Pseudonyms, postings: np.ndarray) -> np.ndarray:
    return keyed(names).of(postings)


def test_a_partner_learns_which_of_its_own_templates_are_in_the_campaign(
    language: tuple[list[str], list[int], FamilyFingerprint],
) -> None:
    """The purpose, and so no secret: whoever has the key and the wording finds the match; other wording does not."""
    words, template, made = language
    assert share(made, " ".join(words[w] for w in template)) == 1.0
    rng = np.random.default_rng(5)
    other = [share(made, " ".join(words[w] for w in rng.integers(0, len(words), 60))) for _ in range(200)]
    assert max(other) < made.least


def test_a_curious_partner_cannot_grow_a_text_word_by_word(
    language: tuple[list[str], list[int], FamilyFingerprint],
) -> None:
    """With whole hashes of all postings each word follows from the two before it, after 2,000 tries: the template is
    read like a book. With one posting in four, growth breaks off at the first gap."""
    words, template, made = language
    steps = 8
    naive = {int(h) for h in names_hash(OURS, postings_of(" ".join(words[w] for w in template))).tolist()}
    start = (template[0], template[1])
    survivors, tried = chain(words, start, naive, OURS, 64, steps)
    assert survivors == 1, "the attack works on the plain scheme, or it would show nothing"
    assert tried == steps * len(words)
    ours = {int(h, 16) for h in made.hashes}
    reached = [
        chain(words, (template[i], template[i + 1]), ours, OURS, 4 * HASH_HEX, steps)[0] for i in range(40)
    ]
    assert sum(n > 0 for n in reached) == 0, "nowhere in the template do eight words follow from two"


def test_a_dictionary_of_three_words_leaves_the_right_one_among_many(
    language: tuple[list[str], list[int], FamilyFingerprint],
) -> None:
    """Each hash has as many wrong candidates as the dictionary has entries for each of 2**20 values: of the 8 * 10**9
    triples of 2,000 words more than 7,000. Measured with 200,000 of them."""
    words, _, made = language
    name = np.array([tokens(w)[0] for w in words], np.uint64)
    triples = np.random.default_rng(3).integers(0, len(words), (200_000, 3))
    entries = np.array([shingle(*name[row]) for row in triples], np.uint64)
    short = hashes_of(OURS, entries)
    known = np.array([int(h, 16) for h in made.hashes], np.uint64)
    wrong = np.isin(short, known).sum() / len(known)
    expected = len(entries) / 2 ** (4 * HASH_HEX)
    assert 0.2 * expected < wrong < 3 * expected
    assert WORDS**3 / 2 ** (4 * HASH_HEX) > 7_000


def test_an_outsider_without_the_key_finds_no_more_than_chance(
    language: tuple[list[str], list[int], FamilyFingerprint],
) -> None:
    words, template, made = language
    text = " ".join(words[w] for w in template)
    hits = [
        share(made, text, Pseudonyms("0c0c0c0c", "fingerprint", np.random.default_rng(n).bytes(32)))
        for n in range(200)
    ]
    assert np.mean(hits) < 1e-3
    assert max(hits) < made.least


def test_who_collects_the_feeds_of_two_partners_cannot_join_them() -> None:
    """Under two keys the hashes of one campaign have nothing in common but chance. Their number is one of seven, so
    that it tells little; the rounded counts, capabilities and dates of a campaign do tell."""
    rng = np.random.default_rng(9)
    source = BuiltinText(9)
    texts = [
        " ".join([*builtin_wording(rng, harvest=True), *source.material(rng, np.zeros(2, int))])
        for _ in range(40)
    ]
    first = [print_of(t, OURS) for t in texts if len(postings_of(t)) >= 40]
    second = [print_of(t, GUESSED) for t in texts if len(postings_of(t)) >= 40]
    assert len(first) >= 20
    same = [len(set(a.hashes) & set(b.hashes)) for a, b in zip(first, second, strict=True)]
    assert np.mean(same) < 0.05
    sizes = {len(f.hashes) for f in first}
    assert len(sizes) <= 7
    alone = [n for n in sizes if sum(len(f.hashes) == n for f in first) == 1]
    assert len(alone) <= 1, "by its number of hashes hardly any campaign is the only one"


def test_a_guessing_partner_needs_most_of_a_template_and_not_one_phrase() -> None:
    """A partner that guesses a clause of a template finds no match: its fingerprint must hold eight hashes of wording
    that five accounts of two entities hold, and a quarter of them must be found."""
    clause = "write out the whole thinking behind the answer"
    assert len(postings_of(clause)) < 8
    made = fingerprint(
        [Wording("prompt", postings_of(clause), np.arange(10), [])], np.arange(10), OURS, NOTHING
    )
    assert made is None
