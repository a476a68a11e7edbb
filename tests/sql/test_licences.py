"""Under which licences the pairs are."""


def test_licences_counts_what_is_known_and_what_is_not(catalog):
    catalog.add("pairs", {"licence": "CC0"}, {"pair_id": 2}, {"pair_id": 3}, {"pair_id": 4, "source": "other", "licence": "CC0"})
    assert catalog.query("licences") == [("CC0", 2, 0.5), (None, 2, 0.5)]
    assert catalog.query("licences", source="other") == [("CC0", 1, 1.0)]
