"""The tree of RFC 6962: its known roots, the RFC's own example, a naive reference, and proofs that must not hold."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.evidence.merkle import (
    EMPTY,
    Frontier,
    consistency,
    consistent,
    included,
    inclusion,
    leaf_hash,
    pair_hash,
    root_of,
)

# The leaves and roots by which Certificate Transparency's implementations check themselves.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = _below(len(leaves))
    return pair_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH, word for word."""
    if len(leaves) == 1:
        return []
    k = _below(len(leaves))
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_proof(m: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF, word for word."""
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = _below(len(leaves))
    if m <= k:
        return [*naive_proof(m, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_proof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def _below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


class Tree:
    """All nodes of a tree, kept as they come."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.frontier = Frontier()
        for leaf in leaves:
            for level, number, found in self.frontier.add(leaf_hash(leaf)):
                assert (level, number) not in self.nodes
                self.nodes[level, number] = found

    def __call__(self, level: int, number: int) -> bytes:
        """A node's hash."""
        return self.nodes[level, number]


def some(count: int) -> list[bytes]:
    return [bytes([n & 255, n >> 8]) for n in range(count)]


def test_the_roots_that_certificate_transparency_knows() -> None:
    assert root_of(0, Tree([])) == EMPTY == Frontier().root
    for size, root in enumerate(ROOTS, 1):
        tree = Tree(LEAVES[:size])
        assert tree.frontier.root.hex() == root
        assert root_of(size, Tree(LEAVES)).hex() == root


def test_the_example_of_the_rfc() -> None:
    # RFC 9162, 2.1.5: a tree of seven leaves, its nodes named a to l.
    d = some(7)
    tree = Tree(d)
    a, b, c, f, j = (leaf_hash(d[n]) for n in (0, 1, 2, 5, 6))
    g, h, i = pair_hash(a, b), pair_hash(c, leaf_hash(d[3])), pair_hash(leaf_hash(d[4]), f)
    k, l_ = pair_hash(g, h), pair_hash(i, j)
    assert inclusion(0, 7, tree) == [b, h, l_]
    assert inclusion(3, 7, tree) == [c, g, l_]
    assert inclusion(4, 7, tree) == [f, j, k]
    assert inclusion(6, 7, tree) == [i, k]
    assert consistency(3, 7, tree) == [c, leaf_hash(d[3]), g, l_]
    assert consistency(4, 7, tree) == [l_]
    assert consistency(6, 7, tree) == [i, j, k]


def test_every_proof_of_small_trees_is_that_of_the_definition() -> None:
    leaves = some(40)
    tree = Tree(leaves)
    for size in range(1, 41):
        root = naive_root(leaves[:size])
        assert root_of(size, tree) == root
        for index in range(size):
            path = inclusion(index, size, tree)
            assert path == naive_path(index, leaves[:size])
            assert included(leaf_hash(leaves[index]), index, size, path, root)
        for first in range(1, size + 1):
            path = consistency(first, size, tree)
            assert path == naive_proof(first, leaves[:size])
            assert consistent(first, size, naive_root(leaves[:first]), root, path)


@given(st.data())
def test_a_proof_of_anything_else_does_not_hold(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    leaves = some(size)
    tree = Tree(leaves)
    root, index = root_of(size, tree), data.draw(st.integers(0, size - 1))
    path, leaf = inclusion(index, size, tree), leaf_hash(leaves[index])
    assert included(leaf, index, size, path, root)
    other = data.draw(st.integers(-2, size + 2).filter(lambda n: n != index))
    assert not included(leaf, other, size, path, root)
    assert not included(leaf_hash(b"another"), index, size, path, root)
    assert not included(leaf, index, size, [*path, root], root)
    first = data.draw(st.integers(1, size))
    before, steps = root_of(first, tree), consistency(first, size, tree)
    assert consistent(first, size, before, root, steps)
    assert not consistent(first, size, leaf_hash(b"another"), root, steps)
    assert not consistent(first, size, before, leaf_hash(b"another"), steps)
    assert not consistent(first, size, before, root, [*steps, root])
    for proof, holds in (
        (path, lambda p: included(leaf, index, size, p, root)),
        (steps, lambda p: consistent(first, size, before, root, p)),
    ):
        if proof:
            at = data.draw(st.integers(0, len(proof) - 1))
            flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
            assert not holds([*proof[:at], flipped, *proof[at + 1 :]])
            assert not holds(proof[:at] + proof[at + 1 :])


def test_a_tree_of_another_size_is_another_tree() -> None:
    # The size is not in the root: a proof for it names a root that this size does not have.
    tree = Tree(some(16))
    for size in range(2, 17):
        root = root_of(size, tree)
        assert not any(
            consistent(first, size, root_of(first, tree), root, consistency(first, other, tree))
            for other in range(2, 17)
            for first in range(1, other)
            if other != size and first <= size
        )


@pytest.mark.parametrize(("first", "second"), [(0, 3), (4, 3), (-1, 3)])
def test_there_is_no_proof_where_there_is_nothing_to_prove(first: int, second: int) -> None:
    tree = Tree(some(3))
    with pytest.raises(ValueError):
        consistency(first, second, tree)
    assert not consistent(first, second, EMPTY, root_of(3, tree), [])
    with pytest.raises(ValueError):
        inclusion(second, second, tree)
