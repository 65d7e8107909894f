"""Golden vectors of the content hash: a change here breaks every stored sketch and every exported key."""

import unicodedata

import xxhash

from stillwatch.sketch.hashing import chain_hash, content_hash


def test_role_tags_keep_equal_words_apart() -> None:
    assert content_hash("user", "hello") != content_hash("system", "hello")


def test_hash_is_plain_xxh3_of_role_and_text() -> None:
    assert content_hash("user", "hello") == xxhash.xxh3_64_intdigest(b"user\x1fhello")


def test_equivalent_unicode_agrees() -> None:
    composed = "caf\u00e9"
    assert content_hash("user", composed) == content_hash("user", unicodedata.normalize("NFD", composed))


def test_lone_surrogate_is_hashed_not_refused() -> None:
    assert content_hash("user", "a\ud800b") == content_hash("user", "a?b")


def test_chain_depends_on_order() -> None:
    one = chain_hash(chain_hash(0, "user", "a"), "user", "b")
    two = chain_hash(chain_hash(0, "user", "b"), "user", "a")
    assert one != two
