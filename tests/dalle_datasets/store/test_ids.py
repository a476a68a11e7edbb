"""Ids depend on content and on nothing else."""

from dalle_datasets.store.ids import candidate_id, content_id, generation_id, pair_id


def test_parts_cannot_run_into_one_another() -> None:
    assert content_id("ab", "c") != content_id("a", "bc")


def test_ids_are_stable_across_versions() -> None:
    """These values are in people's Parquet files; a change of the hash would silently orphan every one of them."""
    assert candidate_id("http://example.org/a.png", "a cat") == "fea1fdcb915b4bcd"
    assert pair_id("00" * 32, "a cat") == 1_411_666_187_010_586_864
    assert generation_id("run", "a cat", 3) == "8b8e6042af8ae50e"


def test_a_pair_id_fits_a_signed_64_bit_integer() -> None:
    assert all(0 <= pair_id(str(i), "caption") < 2**63 for i in range(1_000))
