"""The user turns of a world: their text and their running hashes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stillwatch.arena import vocabulary as V
from stillwatch.arena.sessions import Sessions
from stillwatch.arena.text import LANGUAGES, disguise, new_template
from stillwatch.arena.world import World
from stillwatch.sketch.hashing import chain_hash

MAX_TURN_HASHES = 64
FOLLOW_UP_SHARE = 0.04
"""Share of later chat turns that are a stock phrase (`continue`, `thanks`): exact duplicates."""
ONE_OFF_SHARE = 0.33
"""Share of free turns for which a person writes down instructions and a labelled paste, as programs do."""


@dataclass(frozen=True)
class Turns:
    """User turns, one entry each: stream, account, session, first turn of its conversation, text."""

    stream: np.ndarray
    session: np.ndarray
    first: np.ndarray
    text: list[str]


def write_turns(world: World, sessions: Sessions, session_of: np.ndarray, first: np.ndarray) -> Turns:
    """Text of every user turn: material of all turns in one draw, then the wrapping."""
    rng = world.rng
    stream_of = sessions.stream[session_of]
    account = sessions.account[session_of]
    main = np.array([a.language for a in world.accounts])[account]
    # A relay serves customers of every language: one language per conversation instead of one per account.
    relayed = rng.integers(0, len(LANGUAGES), len(sessions.length))[session_of]
    languages = np.where(main < 0, relayed, np.where(rng.random(len(main)) < 0.9, main, 0))
    material = world.source.material(rng, languages)
    templated = np.array([s.template is not None for s in world.streams])[stream_of]
    slot_a = np.minimum(rng.zipf(1.4, len(stream_of)) - 1, 1 << 20)
    slot_b = rng.integers(0, 1 << 20, len(stream_of))
    _hand_out(world, stream_of, slot_a, slot_b)
    variant_account = rng.integers(0, 1 << 20, len(world.accounts))
    hop = rng.integers(0, 1 << 20, len(stream_of))
    chance = rng.random(len(stream_of))
    for index in np.flatnonzero(templated).tolist():
        stream = world.streams[stream_of[index]]
        template = stream.template
        assert template is not None
        a, b, text = int(slot_a[index]), int(slot_b[index]), material[index]
        if stream.items is not None:
            a, b, text = stream.items[b % len(stream.items)]
        # Most of an account's requests keep one wording; a share wanders over the others.
        wanders = stream.wander or hop[index] % 4 == 0
        variant = int(hop[index] >> 2) if wanders else int(variant_account[account[index]])
        written = template.render(
            variant,
            template.slots_a[a % len(template.slots_a)],
            template.slots_b[b % len(template.slots_b)],
            text,
        )
        if stream.obfuscate and chance[index] < stream.obfuscate:
            written = disguise(rng, written)
        material[index] = written
    _free_forms(world, languages, first, np.flatnonzero(~templated), material)
    return Turns(stream_of, session_of, first, material)


def _free_forms(
    world: World, languages: np.ndarray, first: np.ndarray, free: np.ndarray, text: list[str]
) -> None:
    """Vary turns outside templates, in place: stock follow-ups, one-off instructions around material."""
    rng = world.rng
    draw = rng.random(len(free))
    choice = rng.integers(0, 1 << 30, len(free))
    later = first[free] != free
    stock = later & (draw < FOLLOW_UP_SHARE)
    for index, pick in zip(free[stock].tolist(), choice[stock].tolist(), strict=True):
        phrases = V.FOLLOW_UPS[LANGUAGES[languages[index]]]
        text[index] = phrases[pick % len(phrases)]
    one_off = ~stock & (draw > 1 - ONE_OFF_SHARE)
    templates = [
        new_template(rng, world.source, harvest=False, slots=(3, 3), system_share=0.1)
        for _ in range(int(one_off.sum()) // 5 + 1)
    ]
    for index, pick in zip(free[one_off].tolist(), choice[one_off].tolist(), strict=True):
        template = templates[pick % len(templates)]
        low = pick >> 16
        text[index] = template.render(
            0, template.slots_a[low % 3], template.slots_b[(low >> 2) % 3], text[index]
        )


def _hand_out(world: World, stream_of: np.ndarray, slot_a: np.ndarray, slot_b: np.ndarray) -> None:
    """Deal the cells (a, b) of each work list to all turns of its streams, in place.

    No cell is dealt twice, or every cell `repeat` times, to accounts at random.
    """
    split = np.array([-1 if s.split is None else s.split for s in world.streams])[stream_of]
    for number in range(world.splits):
        rows = np.flatnonzero(split == number)
        if len(rows) == 0:
            continue
        stream = world.streams[stream_of[rows[0]]]
        template = stream.template
        assert template is not None
        wide, tall = len(template.slots_a), len(template.slots_b)
        if stream.items is not None:
            wide, tall = 1, len(stream.items)
        cells = world.rng.permutation(wide * tall)
        repeat = stream.repeat
        if repeat > 1:
            cells = world.rng.permutation(np.repeat(cells[: -(-len(rows) // repeat)], repeat)[: len(rows)])
        dealt = cells[np.arange(len(rows)) % len(cells)]
        slot_a[rows] = dealt // tall
        slot_b[rows] = dealt % tall


def running_hashes(turns: Turns) -> np.ndarray:
    """Running hash after each user turn, shape (turns,), uint64."""
    out = np.empty(len(turns.text), dtype=np.uint64)
    previous = 0
    for index, (text, is_first) in enumerate(
        zip(turns.text, (turns.first == np.arange(len(turns.text))).tolist(), strict=True)
    ):
        previous = chain_hash(0 if is_first else previous, "user", text)
        out[index] = previous
    return out


def history(turn_hash: np.ndarray, first: np.ndarray, turn_of: np.ndarray) -> pa.Array:
    """The list column `turn_hashes`: hashes of the conversation's turns up to each exchange's own."""
    start = np.maximum(first[turn_of], turn_of - MAX_TURN_HASHES + 1)
    count = turn_of - start + 1
    offsets = np.concatenate(([0], np.cumsum(count)))
    flat = np.arange(offsets[-1]) - np.repeat(offsets[:-1], count) + np.repeat(start, count)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(turn_hash[flat]))
