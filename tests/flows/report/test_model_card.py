"""The card of an exported model says what the catalog knows, and lets no page write markup into it."""

import pytest

from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.ingest import ingest_run
from dalle_datasets.catalog.snapshot import publish
from dalle_datasets.store.layout import Layout
from dalle_model.config.presets import preset
from flows.report.model_card import plain, render_card
from flows.report.seen import seen_by_model, told_of

IDS = {"transformer_id": "tf0", "dvae_id": "vae0", "clip_id": "clip0", "tokenizer_id": "bpe0"}


def test_the_card_says_data_licences_training_figures_and_limits(catalogued_root):
    card = render_card(catalogued_root.layout, preset("demo"), IDS)
    num_pairs = len(catalogued_root.pairs)
    num_validation = sum(pair["split"] == "validation" for pair in catalogued_root.pairs)
    assert card.startswith("---\nlibrary_name: open-dalle\n")
    assert f"{num_pairs} pairs of a caption and a picture, {num_validation} of them for validation only" in card
    assert f"| emoji\\_scenes | not known | {num_pairs} |" in card
    assert "| transformer | `train-transformer-7` | 0 |" in card
    assert "| 1,190,000 |" in card
    assert "| dVAE, PSNR of validation pictures, dB | 23.4 |" in card
    assert "| training | 4 |" in card
    assert f"Nobody recorded a licence for {num_pairs} of its pairs." in card
    assert f"{num_pairs} pairs are few" in card


def test_the_card_names_what_a_warm_start_saw_before(catalogued_root):
    layout = catalogued_root.layout
    own = seen_by_model(layout, IDS)
    (training_set,) = {record["data_id"] for record in own if record["role"] == "transformer"}
    assert {(record["role"], *record["of"]) for record in own} == {
        ("transformer", "transformer"), ("clip", "transformer", "clip"), ("dvae", "transformer", "clip", "dvae"),
        ("tokenizer", "transformer", "clip", "tokenizer"),
    }  # fmt: skip
    licences = [{"source": "other | birds", "licence": "CC BY 4.0", "num_pairs": 4_321, "num_pages": 9}]
    before = {"role": "transformer", "network_id": "far", "run_id": "x", "data_id": "set0", "num_pairs": 4_321, "of": ["transformer"]}
    before |= {"sources": ["other | birds"], "licences": licences}
    inherited = {**before, "role": "dvae", "data_id": "p", "sources": ["photos"], "of": ["dvae"]}
    card = render_card(layout, preset("demo"), IDS, [*own, before, inherited])
    assert "| `set0` | other \\| birds | CC BY 4.0 | 4,321 | 9 |" in card
    assert "Its dvae has seen pairs of photos as well." in card
    assert "It began from" not in render_card(layout, preset("demo"), IDS, own)
    assert training_set in card

    imported = {"transformer_id": "far", "dvae_id": "far_vae", "seen": [before], "checkpoint": "x"}
    runs = [
        catalogued_root.run("import-model-20", {"model_id": "m"}, imported),
        catalogued_root.run("train-dvae-21", {"dvae_id": "far_vae", "pairs_id": "p"}, {"dvae_id": "far_vae", "psnr": 17.3}),
    ]
    with connect(layout.catalog) as con:
        for run in runs:
            ingest_run(con, layout, run)
    publish(layout)
    assert told_of(layout) == [before]
    card = render_card(layout, preset("demo"), {**IDS, "dvae_id": "far_vae"})
    assert "| dvae | taken over, not trained here |" in card
    assert "| dVAE, PSNR of validation pictures, dB | 17.3 |" in card
    with pytest.raises(ValueError, match="transformer far was imported, not trained here; hand on the folder that it came from"):
        render_card(layout, preset("demo"), {**IDS, "transformer_id": "far"})
    told = seen_by_model(layout, {**IDS, "transformer_id": "far"}, told_of(layout))
    assert [record["licences"] for record in told if record["data_id"] == "set0"] == [licences], "an export hands on what it was told"


def test_a_network_that_the_catalog_does_not_know_is_an_error(catalogued_root, tmp_path):
    with pytest.raises(ValueError, match=r"does not know the run that trained transformer other; bring it up to date with"):
        render_card(catalogued_root.layout, preset("demo"), {**IDS, "transformer_id": "other"})
    with pytest.raises(ValueError, match="publish"):
        render_card(Layout(tmp_path), preset("demo"), IDS)


def test_a_licence_from_a_page_cannot_write_markup():
    said = plain("CC BY\n\n# Owned\n<script> | [free](http://x) `rm` ![x](y)" + "z" * 300)
    assert "\n" not in said
    assert "<" not in said
    assert "\\[free\\]\\(http://x\\)" in said
    assert "\\|" in said
    assert said.endswith("…")
