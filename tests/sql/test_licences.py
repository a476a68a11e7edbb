"""Under which licences the pairs are, and those of a training set."""

from dalle_datasets.store.schemas import TRAINING_SET


def test_licences_counts_what_is_known_and_what_is_not(catalog):
    catalog.add("pairs", {"licence": "CC0"}, {"pair_id": 2}, {"pair_id": 3}, {"pair_id": 4, "source": "other", "licence": "CC0"})
    assert catalog.query("licences") == [("CC0", 2, 0.5), (None, 2, 0.5)]
    assert catalog.query("licences", source="other") == [("CC0", 1, 1.0)]


def test_a_training_set_counts_its_own_pairs_once_by_source_and_licence(catalog, write, tmp_path):
    rows = [{"pair_id": 1}, {"pair_id": 1}, {"pair_id": 2}, {"pair_id": 3}]
    write("birds [2021]/training_sets/set/part-00000.parquet", TRAINING_SET, rows)
    catalog.add(
        "pairs",
        {"pair_id": 1, "licence": "CC0", "page_url": "a"},
        {"pair_id": 1, "source": "zoo", "licence": "secret"},
        {"pair_id": 2, "licence": "CC0", "page_url": "b"},
        {"pair_id": 3, "source": "mine", "page_url": "c"},
        {"pair_id": 4, "licence": "CC0"},
    )
    found = catalog.query("training_set_licences", root=str(tmp_path / "birds [2021]"), training_set_id="set")
    assert found == [("web", "CC0", 2, 2), ("mine", None, 1, 1)]
