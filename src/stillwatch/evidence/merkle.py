"""Merkle trees of RFC 6962 (section 2.1) over SHA-256: hashes, proofs, and their verification (RFC 9162, 2.1).

A *node* (level, number) is the root of the complete subtree over the leaves [number << level, (number + 1) << level).
A complete subtree never changes, so that whoever keeps all nodes proves anything in O(log n) look-ups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

EMPTY = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""
Node = Callable[[int, int], bytes]
"""(level, number) -> the node's hash, 32 bytes."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of one leaf, 32 bytes."""
    return hashlib.sha256(b"\0" + data).digest()


def pair_hash(left: bytes, right: bytes) -> bytes:
    """Hash over two subtrees, 32 bytes."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Frontier:
    """The right edge of a tree that grows: the roots of its complete subtrees, largest first."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """`peaks`: one hash for each bit that is set in `size`, highest bit first."""
        self.size, self._peaks = size, list(peaks)

    @classmethod
    def at(cls, size: int, node: Node) -> Frontier:
        """The edge of the tree of the first `size` leaves."""
        return cls(size, [node(level, number) for level, number in _subtrees(0, size)])

    def add(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Take in a leaf's hash; the nodes (level, number, hash) that it completes, itself first."""
        made = [(0, self.size, leaf)]
        self._peaks.append(leaf)
        number, level = self.size, 0
        while number & 1:
            right, left = self._peaks.pop(), self._peaks.pop()
            number, level = number >> 1, level + 1
            self._peaks.append(pair_hash(left, right))
            made.append((level, number, self._peaks[-1]))
        self.size += 1
        return made

    @property
    def root(self) -> bytes:
        """Root of the tree as it is."""
        return _folded(self._peaks)


def root_of(size: int, node: Node) -> bytes:
    """Root of the tree of the first `size` leaves."""
    return Frontier.at(size, node).root


def inclusion(index: int, size: int, node: Node) -> list[bytes]:
    """Proof that leaf `index` is in the tree of `size` leaves: PATH of RFC 6962, 2.1.1. ValueError if it is not."""
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    path = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_range(middle, end, node))
            end = middle
        else:
            path.append(_range(begin, middle, node))
            begin = middle
    return path[::-1]


def consistency(first: int, second: int, node: Node) -> list[bytes]:
    """Proof that the tree of `second` leaves begins with that of `first`: PROOF of RFC 6962, 2.1.2.

    ValueError unless 0 < first <= second.
    """
    if not 0 < first <= second:
        raise ValueError("the earlier tree must have leaves, and no more than the later one")
    path = []
    begin, end, whole = 0, second, True
    while first != end:
        middle = begin + _split(end - begin)
        if first <= middle:
            path.append(_range(middle, end, node))
            end = middle
        else:
            path.append(_range(begin, middle, node))
            begin, whole = middle, False
    if not whole:
        path.append(_range(begin, end, node))
    return path[::-1]


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves that the leaf with this hash is number `index` under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = pair_hash(step, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = pair_hash(found, step)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def consistent(first: int, second: int, before: bytes, after: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves that the tree with root `after` begins with the one with root `before`.

    RFC 9162, 2.1.4.2. `first` and `second` are their sizes.
    """
    if not 0 < first <= second:
        return False
    if first == second:
        return not path and before == after
    steps = [before, *path] if first & (first - 1) == 0 else list(path)
    if not steps:
        return False
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = pair_hash(step, old), pair_hash(step, new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new = pair_hash(new, step)
        at, last = at >> 1, last >> 1
    return last == 0 and old == before and new == after


def _split(count: int) -> int:
    """The largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _subtrees(begin: int, end: int) -> list[tuple[int, int]]:
    """The complete subtrees (level, number) of [begin, end), largest first; `begin` is a multiple of the largest."""
    found = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        found.append((level, begin >> level))
        begin += 1 << level
    return found


def _range(begin: int, end: int, node: Node) -> bytes:
    return _folded([node(level, number) for level, number in _subtrees(begin, end)])


def _folded(peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return EMPTY
    found = peaks[-1]
    for peak in reversed(peaks[:-1]):
        found = pair_hash(peak, found)
    return found
