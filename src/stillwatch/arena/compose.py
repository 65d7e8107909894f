"""From sessions to the exchanges table: text of every turn, running hashes, network, settings, tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stillwatch.arena.reroute import compacted, moved, replayed
from stillwatch.arena.sessions import Sessions, life
from stillwatch.arena.timing import DAY_US
from stillwatch.arena.turns import Turns, history, running_hashes, write_turns
from stillwatch.arena.world import World
from stillwatch.schema.tables import EXCHANGES
from stillwatch.sketch.hashing import chain_hash, content_hash


@dataclass(frozen=True)
class Composed:
    """The finished exchanges (sorted by ts), their harvest flags, and sanctions that arose on the way."""

    table: pa.Table
    harvest: np.ndarray
    account: np.ndarray
    sanctions: list[tuple[int, int, str, str]]


def compose(world: World, sessions: Sessions) -> Composed:
    """Write every request of the world."""
    rng = world.rng
    sessions, relay = _with_handovers(world, sessions)
    agent = np.array([s.mode == "agent" for s in world.streams])[sessions.stream]
    bulk = np.array([s.mode == "bulk" for s in world.streams])[sessions.stream]
    steps = np.where(agent, rng.integers(4, 14, len(agent)), 1)
    turn_count = -(-sessions.length // steps)
    turn_base = np.concatenate(([0], np.cumsum(turn_count)))[:-1]
    session_of_turn = np.repeat(np.arange(len(turn_count)), turn_count)
    first_turn = np.where(bulk[session_of_turn], np.arange(len(session_of_turn)), turn_base[session_of_turn])
    first_turn = compacted(world, sessions.stream[session_of_turn], first_turn)
    turns = write_turns(world, sessions, session_of_turn, first_turn)

    session_of = np.repeat(np.arange(len(sessions.length)), sessions.length)
    base = np.concatenate(([0], np.cumsum(sessions.length)))[:-1]
    position = np.arange(len(session_of)) - base[session_of]
    turn_of = turn_base[session_of] + position // steps[session_of]
    account_of = sessions.account[session_of]
    ts = _times(world, sessions, session_of, position, account_of)
    status = np.full(len(ts), 200, dtype=np.int16)
    draw = rng.random(len(ts))
    status[draw < 0.012] = 429
    status[(draw >= 0.012) & (draw < 0.016)] = 500
    status[(draw >= 0.016) & (draw < 0.019)] = 400
    # One outage of the service is a common cause that everybody shares.
    outage, lasts = world.start_us + int(rng.uniform(1, 13) * DAY_US), int(rng.uniform(15, 90) * 60e6)
    if world.outage is not None:
        outage, lasts = world.outage
    struck = (ts >= outage) & (ts < outage + lasts) & (rng.random(len(ts)) < 0.8)
    status[struck] = 503
    sanctions = list(world.bans)
    account_of = moved(world, sessions, session_of, position, account_of, ts)

    effort = np.array([s.request.reasoning_effort is not None for s in world.streams])
    thinks = effort[sessions.stream][session_of] & (status == 200) & (rng.random(len(ts)) < 0.8)
    block_out = rng.integers(1, 1 << 62, len(ts), dtype=np.uint64) * thinks
    # A conversation carries the previous reply's reasoning block back, whoever continues it.
    block_in = np.concatenate((block_out[:1] * 0, block_out[:-1])) * ((position > 0) & ~bulk[session_of])
    block_in = replayed(world, sessions.stream[session_of], account_of, ts, block_in, block_out)
    extra: list[tuple[int, int, int, int]] = []
    for number, handover in enumerate(world.handovers):
        rows = base[relay[number]] + np.arange(int(sessions.length[relay[number]]))
        cut = len(rows) // 2
        gaps = rng.exponential(25e6, len(rows)).astype(np.int64) + 3_000_000
        ts[rows[:cut]] = handover.at_us - np.cumsum(gaps[:cut])[::-1]
        ts[rows[cut:]] = (
            handover.at_us
            + int(rng.uniform(1e6, handover.within_s * 1e6))
            + np.concatenate(([0], np.cumsum(gaps[cut + 1 :])))
        )
        status[rows] = 200
        account_of[rows[cut:]] = handover.new
        extra.append((int(rows[cut]), handover.old, handover.at_us, 403 if handover.kind == "ban" else 429))
        if number == 0 or world.handovers[number - 1].old != handover.old:
            reason = "policy" if handover.kind == "ban" else "quota"
            sanctions.append(
                (handover.at_us - int(rng.uniform(1e5, 2e6)), handover.old, handover.kind, reason)
            )
    if extra:
        rows = np.array([e[0] for e in extra])
        session_of = np.concatenate((session_of, session_of[rows]))
        position = np.concatenate((position, position[rows]))
        turn_of = np.concatenate((turn_of, turn_of[rows]))
        block_out = np.concatenate((block_out, np.zeros(len(rows), np.uint64)))
        block_in = np.concatenate((block_in, block_in[rows]))
        account_of = np.concatenate((account_of, [e[1] for e in extra]))
        ts = np.concatenate((ts, [e[2] for e in extra]))
        status = np.concatenate((status, np.array([e[3] for e in extra], dtype=np.int16)))
    over = np.unique(account_of[status == 429])
    for index in over[rng.random(len(over)) < 0.1].tolist():
        moment = int(ts[(account_of == index) & (status == 429)][0])
        sanctions.append((moment, index, "rate_limit", "quota"))

    order = np.argsort(ts, kind="stable")
    session_of, position, turn_of = session_of[order], position[order], turn_of[order]
    account_of, ts, status = account_of[order], ts[order], status[order]
    block_out, block_in = block_out[order], block_in[order]
    table = _table(
        world,
        sessions,
        turns,
        session_of,
        position,
        turn_of,
        account_of,
        ts,
        status,
        steps,
        block_out,
        block_in,
    )
    harvest = np.array([s.harvest for s in world.streams])[sessions.stream[session_of]]
    return Composed(table, harvest, account_of, sorted(sanctions))


def _with_handovers(world: World, sessions: Sessions) -> tuple[Sessions, list[int]]:
    """Append one conversation per hand-over, begun by the old account; with their session numbers."""
    count = len(world.handovers)
    if not count:
        return sessions, []
    number = len(sessions.length) + np.arange(count)
    merged = Sessions(
        np.concatenate((sessions.account, [h.old for h in world.handovers])),
        np.concatenate((sessions.stream, [h.stream for h in world.handovers])),
        np.concatenate((sessions.length, world.rng.integers(6, 13, count))),
        np.concatenate((sessions.start_us, [h.at_us for h in world.handovers])),
    )
    return merged, number.tolist()


def _times(
    world: World, sessions: Sessions, session_of: np.ndarray, position: np.ndarray, account_of: np.ndarray
) -> np.ndarray:
    """Arrival time (us) of every exchange, kept inside the life of its account."""
    rng = world.rng
    gap_s = np.array([s.gap_s for s in world.streams])[sessions.stream][session_of]
    gaps = rng.exponential(1.0, len(session_of)) * gap_s * 1e6 + 200_000
    gaps[position == 0] = 0
    total = np.cumsum(gaps)
    begins = np.flatnonzero(position == 0)
    elapsed = total - np.repeat(total[begins], sessions.length)
    ts = sessions.start_us[session_of] + elapsed.astype(np.int64)
    first, last = (x[account_of] for x in life(world))
    outside = (ts < first) | (ts >= last)
    # Whatever falls outside the account's life is folded back: no request precedes its sign-up.
    ts = np.where(outside, first + (ts - first) % np.maximum(last - first, 1), ts)
    out: np.ndarray = ts
    return out


def _strings(values: list[str | None], index: np.ndarray) -> pa.Array:
    """Gather a small table of strings by index; -1 gives null."""
    return pa.array(values, pa.string()).take(pa.array(index, mask=index < 0))


def _nullable(values: list[int | float | None], index: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind).take(pa.array(index))


def _table(
    world: World,
    sessions: Sessions,
    turns: Turns,
    session_of: np.ndarray,
    position: np.ndarray,
    turn_of: np.ndarray,
    account_of: np.ndarray,
    ts: np.ndarray,
    status: np.ndarray,
    steps: np.ndarray,
    block_out: np.ndarray,
    block_in: np.ndarray,
) -> pa.Table:
    rng = world.rng
    rows = len(ts)
    stream_of = sessions.stream[session_of]
    streams = world.streams
    network, stacks = world.network, world.stacks

    systems: list[str | None] = [s.template.system if s.template is not None else s.system for s in streams]
    system_bytes = np.array([len(s.encode()) if s else 0 for s in systems])
    system_hash: list[int | float | None] = [content_hash("system", s) if s else None for s in systems]
    seeds = [
        chain_hash(chain_hash(0, "system", s or ""), "tools", str(st.request.tools_hash or ""))
        for s, st in zip(systems, streams, strict=True)
    ]
    turn_hash = running_hashes(turns)
    text_bytes = np.array([len(t.encode()) for t in turns.text])

    # Replies are not kept, but the prefix covers them: a token per turn stands for the reply.
    reply = rng.integers(1, 1 << 62, len(turn_hash))
    reply_tokens = np.minimum(rng.lognormal(5.2, 0.8, len(turn_hash)), 8000).astype(np.int64)
    prefix = np.zeros(len(turn_hash), dtype=np.uint64)
    prefix_bytes = np.zeros(len(turn_hash), dtype=np.int64)
    history_tokens = np.zeros(len(turn_hash), dtype=np.int64)
    later = turns.first != np.arange(len(turn_hash))
    starts = [
        s is not None or st.request.tools_hash is not None for s, st in zip(systems, streams, strict=True)
    ]
    stream_list, bytes_list, reply_list, later_list = (
        turns.stream.tolist(),
        text_bytes.tolist(),
        reply.tolist(),
        later.tolist(),
    )
    tokens_list = reply_tokens.tolist()
    for index in range(len(turn_hash)):
        if later_list[index]:
            before = chain_hash(int(prefix[index - 1]), "user", str(int(turn_hash[index - 1])))
            prefix[index] = chain_hash(before, "assistant", str(reply_list[index - 1]))
            prefix_bytes[index] = prefix_bytes[index - 1] + bytes_list[index - 1] + 4 * tokens_list[index - 1]
        else:
            ident = stream_list[index]
            prefix[index] = seeds[ident] if starts[ident] else 0
            prefix_bytes[index] = system_bytes[ident]
        history_tokens[index] = prefix_bytes[index] // 4

    depth = turn_of - turns.first[turn_of]
    step = position % steps[session_of]
    is_agent = steps[session_of] > 1
    has_system = np.array([s is not None for s in systems])[stream_of]
    n_messages = (1 + 2 * depth + has_system + np.where(is_agent, 2 * position, 0)).astype(np.int32)
    ok = status == 200
    output = np.minimum(rng.lognormal(5.2, 0.9, rows), 8000).astype(np.int64) + 1
    limits = np.array([s.request.max_tokens or 1 << 20 for s in streams])[stream_of]
    output = np.minimum(output, limits)
    text_tokens = np.maximum(1, text_bytes[turn_of] // 4)
    inputs = (
        text_tokens
        + history_tokens[turn_of]
        + np.where(is_agent, 300 * position, 0)
        + rng.integers(3, 9, rows)
    )
    thinks = block_out > 0
    reasoning = np.where(thinks, np.minimum(rng.lognormal(6, 0.8, rows), 30000), 0).astype(np.int64)
    place, stack, agent_name, end_user = _network_of(world, sessions)
    # A hand-over moves a conversation to the new account's own address.
    elsewhere = account_of != sessions.account[session_of]
    blocks = place[session_of]
    for row in np.flatnonzero(elsewhere).tolist():
        blocks[row] = world.accounts[account_of[row]].places[0]
    octets = blocks[:, 1]
    names = pa.array(network.prefix).take(pa.array(blocks[:, 0]))
    ip = pa.compute.binary_join_element_wise(names, pa.array(octets).cast(pa.string()), "")
    used = stack[session_of]
    stripped = np.array([a.stripped for a in world.accounts])[account_of]
    conversation = rng.random(len(sessions.length)) < 0.6
    bulk = np.array([s.mode == "bulk" for s in streams])[stream_of]
    conversations = [_hex(v) for v in rng.integers(0, 1 << 62, len(sessions.length)).tolist()]
    keep = conversation[session_of] & ~bulk & ~elsewhere & ~stripped
    codes = [_account_code(world, i) for i in range(len(world.accounts))]
    refuse = np.array([max(0.006, s.refuse) for s in streams])
    columns: dict[str, pa.Array] = {
        "exchange_id": pa.array([f"x{_hex(v)}" for v in _distinct(rng, rows).tolist()]),
        "ts": pa.array(ts, pa.timestamp("us", tz="UTC")),
        "account_id": pa.array(codes).take(pa.array(account_of)),
        "end_user_id": _strings(end_user[0], end_user[1][session_of]),
        "conversation_id": _strings(list(conversations), np.where(keep, session_of, -1)),
        "provider": pa.array(["own"] * rows),
        "model": pa.array(world.models).take(pa.array(_models(world, account_of, stream_of, ts))),
        "endpoint": pa.array([s.request.endpoint for s in streams]).take(pa.array(stream_of)),
        "system": _strings(systems, stream_of),
        "prompt": pa.array(turns.text, pa.string()).take(pa.array(turn_of)),
        "n_messages": pa.array(n_messages),
        "newest_role": pa.array(["user", "tool"]).take(pa.array((is_agent & (step > 0)).astype(np.int64))),
        "turn_hashes": history(turn_hash, turns.first, turn_of),
        "prefix_hash": pa.array(prefix[turn_of], mask=prefix[turn_of] == 0),
        "prefix_bytes": pa.array(prefix_bytes[turn_of].astype(np.int32)),
        "system_hash": _nullable(system_hash, stream_of, pa.uint64()),
        "tools_hash": _nullable([s.request.tools_hash for s in streams], stream_of, pa.uint64()),
        "format_hash": _nullable([s.request.format_hash for s in streams], stream_of, pa.uint64()),
        "reasoning_in": _token_lists(block_in),
        "reasoning_out": _token_lists(block_out),
        "max_tokens": _nullable([s.request.max_tokens for s in streams], stream_of, pa.int32()),
        "temperature": _nullable([s.request.temperature for s in streams], stream_of, pa.float32()),
        "reasoning_effort": _strings([s.request.reasoning_effort for s in streams], stream_of),
        "stream": pa.array(np.array([s.request.stream for s in streams])[stream_of]),
        "input_tokens": pa.array(inputs.astype(np.int32)),
        "output_tokens": pa.array(output.astype(np.int32), mask=~ok),
        "reasoning_tokens": pa.array(reasoning.astype(np.int32), mask=~thinks),
        "latency_ms": pa.array((200 + output * rng.uniform(8, 20, rows)).astype(np.float32)),
        "status": pa.array(status),
        "refused": pa.array(ok & (rng.random(rows) < refuse[stream_of])),
        "stop_reason": pa.array(["stop", "length"]).take(pa.array((output >= limits).astype(np.int64))),
        "ip": ip,
        "asn": pa.array(network.asn[blocks[:, 0]]),
        "ja4": pa.array(stacks.ja4).take(pa.array(used)),
        "header_hash": pa.array(stacks.header_hash[used]),
        "user_agent": _strings(list(stacks.user_agent), np.where(stripped, -1, agent_name[session_of])),
        "content_state": pa.array(["full"] * rows),
        "sample_rate": pa.array(np.ones(rows, dtype=np.float32)),
    }
    gateways: list[str | None] = [
        f"gw{a.group:04d}" if a.contract == "gateway" else None for a in world.accounts
    ]
    columns["gateway_id"] = _strings(gateways, account_of)
    columns["end_user_trust"] = _strings([a.end_user_trust for a in world.accounts], account_of)
    return pa.table([columns[f.name].cast(f.type) for f in EXCHANGES if f.name in columns],
                    schema=pa.schema([f for f in EXCHANGES if f.name in columns]))  # fmt: skip


def _hex(value: int) -> str:
    return f"{value:016x}"


def _distinct(rng: np.random.Generator, count: int) -> np.ndarray:
    """Distinct opaque numbers: random 40-bit heads with the collision-free counter mixed in."""
    mixed = (np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(
        rng.integers(1, 1 << 62)
    )
    out: np.ndarray = mixed[rng.permutation(count)]
    return out


def _account_code(world: World, index: int) -> str:
    mixed = (
        (world.first_account + index + 1) * 0x9E3779B97F4A7C15 ^ (world.seed + 77) * 0xC2B2AE3D27D4EB4F
    ) & ((1 << 64) - 1)
    return f"acct_{mixed:016x}"


def account_codes(world: World) -> list[str]:
    """Opaque account ids in the world's order; neither order nor spelling tells the kind."""
    return [_account_code(world, index) for index in range(len(world.accounts))]


def _token_lists(values: np.ndarray) -> pa.Array:
    """A list column with one entry where the value is not 0, null elsewhere."""
    present = values > 0
    offsets = np.concatenate(([0], np.cumsum(present))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[present]), mask=pa.array(~present))


def _models(world: World, account_of: np.ndarray, stream_of: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """Model index per exchange; after the release a share of accounts moves to the new model."""
    base = np.array([s.request.model for s in world.streams])[stream_of]
    keen = world.rng.random(len(world.accounts)) < 0.4
    wait = (world.rng.exponential(48, len(world.accounts)) * 3.6e9).astype(np.int64)
    switched = keen[account_of] & (ts > world.release_us + wait[account_of])
    never = np.iinfo(np.int64).max
    pivot = np.array([never if a.pivot_us is None else a.pivot_us for a in world.accounts], dtype=np.int64)
    switched |= ts >= pivot[account_of]
    out: np.ndarray = np.where(switched, len(world.models) - 1, base)
    return out


def _network_of(
    world: World, sessions: Sessions
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[list[str | None], np.ndarray]]:
    """Per session: (block, octet), stack, user-agent index, and (names, index) of end users."""
    rng = world.rng
    count = len(sessions.length)
    place = np.zeros((count, 2), dtype=np.int64)
    stack = np.zeros(count, dtype=np.int64)
    agent = np.zeros(count, dtype=np.int64)
    end_user = np.full(count, -1, dtype=np.int64)
    names: list[str | None] = []
    offset: dict[int, int] = {}
    draws = rng.integers(0, 1 << 30, (count, 4)).tolist()
    agents = len(world.stacks.ja4)
    for index, (number, row) in enumerate(zip(sessions.account.tolist(), draws, strict=True)):
        account = world.accounts[number]
        place[index] = account.places[0 if row[0] % 10 < 6 else row[0] // 10 % len(account.places)]
        stack[index] = account.stacks[0 if row[1] % 10 < 7 else row[1] // 10 % len(account.stacks)]
        agent[index] = row[2] % agents if account.shuffle_agents else stack[index]
        if account.end_users:
            if number not in offset:
                offset[number] = len(names)
                names.extend(account.end_users)
            end_user[index] = offset[number] + row[3] % len(account.end_users)
    return place, stack, agent, (names, end_user)
