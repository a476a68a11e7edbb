"""The report: one self-contained file that shows what the catalog and the files say, with every text escaped."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from dalle_datasets.catalog import ingest, snapshot
from dalle_datasets.catalog.connection import connect
from dalle_datasets.store.layout import Layout
from dalle_model.config.presets import preset
from flows.report import write_report
from flows.report.data import Picture, collect, newest_generation_run
from flows.report.measured import describe_figures
from flows.report.page import duration, render, spread
from flows.report.verdicts import Verdict


@pytest.fixture(scope="module")
def root(tmp_path_factory, _catalogued_template):
    return _catalogued_template


@pytest.fixture(scope="module")
def config():
    return preset("demo", {"evaluate.num_shown": 3})


@pytest.fixture(scope="module")
def data(root, config):
    return collect(root.layout, config)


@pytest.fixture(scope="module")
def page(data):
    return render(data)


def test_the_page_is_well_formed_and_loads_nothing(page, parse):
    parsed = parse(page)
    assert parsed.open == []
    assert {address.split(":")[0] for address in parsed.addresses if not address.startswith("#")} == {"data"}
    assert "<script" not in page
    assert re.findall(r"url\(|@import", page) == []


def test_every_picture_has_a_description(page, parse):
    parsed = parse(page)
    assert len(parsed.images) > 40
    assert all(image["alt"] for image in parsed.images)
    assert page.count('role="img" aria-label="') >= 6, "the charts too"


def test_the_navigation_leads_to_sections_that_exist(page, parse):
    parsed = parse(page)
    assert [link.removeprefix("#") for link in parsed.links] == [
        "content", "pictures", "figures", "reranking", "candidates", "dvae", "training", "pairs", "left-out", "lineage", "ask", "this-run",
    ]  # fmt: skip
    assert {link.removeprefix("#") for link in parsed.links} <= parsed.ids


def test_small_pictures_are_enlarged_with_hard_edges(page):
    assert 'class="pixel" src="data:image/png;base64,' in page
    assert "image-rendering: pixelated" in page


def test_the_three_sets_come_from_seen_to_unseen_with_verdicts(data, page):
    assert [(item.name, item.num_prompts, len(item.pictures)) for item in data.prompt_sets] == [
        ("training", 2, 2), ("unseen_scene", 2, 2), ("held_out_pair", 2, 2),
    ]  # fmt: skip
    assert all(picture.rank == 1 for item in data.prompt_sets for picture in item.pictures)
    shown = [picture for item in data.prompt_sets for picture in item.pictures]
    assert page.count('<span class="good">✓ right</span>') == sum(picture.is_right for picture in shown) + bool(
        data.lineage_picture.is_right
    )


def test_a_wrong_picture_says_what_is_wrong_and_an_unjudged_one_nothing():
    def picture(verdict):
        return Picture("g", "a prompt", None, 0.5, 1, verdict)

    wrong = picture({"object": True, "color": False, "background": True, "layout": False})
    assert wrong.said == Verdict(False, "colour, layout", "colour, layout")
    assert picture({"object": False, "color": False, "background": False, "layout": True}).said.text == "only layout right"
    assert picture(dict.fromkeys(wrong.verdict, False)).said.text == "everything"
    assert picture(dict.fromkeys(wrong.verdict, True)).said == Verdict(True)
    assert (wrong.is_right, picture(dict.fromkeys(wrong.verdict, True)).is_right, picture(None).is_right) == (False, True, None)
    assert picture(None).said is None


def test_the_first_lines_say_how_good_it_is_beside_chance_and_real_pictures(data, page):
    head = page[: page.index("</header>")]
    assert (
        "Scenes that training never saw: a CLIP that did not choose them finds the right one among 100 for 25% (10-40%) of the best of 4 "
        "pictures; without a choice 20% (10-40%), chance 1.0%, real pictures 50% (10-40%) (2 prompts)."
    ) in head
    assert "0% (0-40%) of these look copied from a training picture." in head
    assert "gives pictures that were kept apart back at 23.4 dB" in head
    own = [row | {"note": "judged by the CLIP that chose, so too good"} for row in data.figures]
    assert "the CLIP that chose them finds" in (said := " ".join(describe_figures(own)))
    assert "that is too good; `dalle evaluate` trains another one" in said
    seen = [row | {"prompt_set": row["prompt_set"] and "seen_caption"} for row in data.figures]
    assert "Every caption that was asked for occurs in training, too" in " ".join(describe_figures(seen))
    assert describe_figures([]) == []


def test_candidates_are_ordered_by_score(data):
    assert [len(item.pictures) for item in data.candidates] == [4, 4, 4, 4]
    assert [item.prompt_set for item in data.candidates] == ["training", "unseen_scene", "held_out_pair", "training"]
    for item in data.candidates:
        scores = [picture.clip_score for picture in item.pictures]
        assert scores == sorted(scores, reverse=True)


def test_numbers_come_from_the_catalog(data):
    assert data.results["train_dvae"]["psnr"] == 23.4
    assert data.results["train_transformer"]["num_parameters"] == 1_190_000
    assert set(data.results) >= {"train_bpe", "train_dvae", "train_clip", "train_transformer", "tokenize_images", "score_pairs", "evaluate"}
    assert data.num_pairs == 12
    assert data.git_commit == "c0ffee"
    assert len(data.reconstructions) == 8
    assert [row["num_left"] for row in data.funnel] == [19, 18, 15, 15, 12]
    assert len(data.logged["train_transformer"].curves["image_loss", "train"]) == 20
    assert len(data.logged["train_transformer"].curves["image_loss", "validation"]) == 4
    assert len(data.logged["train_transformer"].speed["tokens_per_s"]) == 19
    assert {row["best_of"] for row in data.agreement} == {1, 4}


def test_the_settings_shown_are_those_the_pictures_were_made_with(data):
    assert data.config.sampling.num_images == 4, "from the run, not from the settings the report was asked for with"


def test_the_lineage_is_of_a_right_picture_of_the_hardest_set_that_has_one(data):
    hardest = [item for item in data.prompt_sets if any(picture.is_right for picture in item.pictures)][-1]
    assert data.lineage_picture == next(picture for picture in hardest.pictures if picture.is_right)
    assert {row["fact"]: row["value"] for row in data.lineage}["prompt"] == data.lineage_picture.prompt
    assert len(data.nearest) == 3
    assert all(-1 <= row["clip_similarity"] <= 1.001 and row["looks_copied"] in (True, False) for row in data.nearest)


def test_text_from_the_web_is_escaped(catalogued_root, config, parse):
    layout = catalogued_root.layout
    nasty = '<script>alert("x")</script> & "quotes"'
    with connect(layout.catalog) as con:
        con.execute("update dropped_pairs set caption = $nasty, detail = $nasty, reason = $nasty", {"nasty": nasty})
        con.execute("update generations set prompt = $nasty", {"nasty": nasty})
        con.execute("update pairs set caption = $nasty", {"nasty": nasty})
        con.execute("update stage_times set stage = $nasty", {"nasty": nasty})
    snapshot.publish(layout)
    page = render(collect(layout, config))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert parse(page).open == []


def test_the_file_is_written_whole_and_again_with_the_same_content(catalogued_root, config):
    path = write_report(catalogued_root.layout, config)
    assert path == catalogued_root.layout.report
    first = path.read_bytes()
    assert len(first) < 6_000_000
    assert write_report(catalogued_root.layout, config).read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


def test_nothing_of_this_machine_is_in_it(page, root):
    assert str(root.layout.root) not in page


def test_ten_thousand_pictures_are_folded_and_open_as_quickly(data):
    (most, *_) = data.prompt_sets
    pictures = [replace(most.pictures[0], prompt=f"prompt {i}") for i in range(10_000)]
    page = render(replace(data, prompt_sets=[replace(most, pictures=pictures, num_prompts=10_000)]))
    assert page.count('<details class="more">') == 104
    assert "<summary>pictures 9985 to 10000</summary>" in page
    assert "10000 of 10,000 prompts shown" in page
    opened = page.partition('<details class="more">')[0]
    assert ("prompt 95<" in opened, "prompt 96<" in opened, "prompt 9999<" in page) == (True, False, True)


def test_keyboards_and_screen_readers_find_their_way(page):
    for landmark in ("<header", '<nav aria-label="Sections">', '<main id="content">', "<footer>", '<html lang="en">'):
        assert page.count(landmark) == 1, landmark
    assert page.index('href="#content"') < page.index("<nav")
    assert re.findall(r'<div class="scroll"(?! tabindex="0" role="region" aria-label=)', page) == [], "what scrolls is reached by keys"
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels


def test_missing_pictures_leave_a_placeholder(catalogued_root, config, parse):
    for path in catalogued_root.layout.root.glob("runs/*/images/*.png"):
        path.unlink()
    page = render(collect(catalogued_root.layout, config))
    assert "(the file is missing)" in page
    assert parse(page).open == []


def test_pictures_nobody_judged_are_shown_without_a_word_of_a_checker(catalogued_root, config, parse):
    with connect(catalogued_root.layout.catalog) as con:
        con.execute("delete from evaluations")
        con.execute("delete from ingested_parts where artifact_kind = 'evaluations'")
    snapshot.publish(catalogued_root.layout)
    page = render(collect(catalogued_root.layout, config))
    for section in ("pictures", "figures", "candidates"):
        shown = page[page.index(f'<section id="{section}"') :].partition("</section>")[0]
        assert not re.search("checker|judged|✓|✗", shown), section
    assert 'id="reranking"' not in page, "there is nothing to show"
    assert parse(page).open == []


def test_no_pictures_yet(make_data_root, config):
    root = make_data_root()
    root.collect()
    with connect(root.layout.catalog) as con:
        ingest.ingest_pairs(con, root.layout, "emoji_scenes")
    snapshot.publish(root.layout)
    with pytest.raises(ValueError, match=r"holds no generated pictures yet; run `dalle demo` or `dalle run generate_images` first"):
        write_report(root.layout, config)


def test_nothing_published_yet(tmp_path, config):
    with pytest.raises(ValueError, match="no catalog has been published yet"):
        write_report(Layout(tmp_path), config)


def test_the_run_with_these_settings_is_chosen_over_a_newer_one(config):
    def run(run_id, **overrides):
        from dalle_model.config.parsing import to_dict

        settings = {name: value for name, value in to_dict(preset("demo", overrides)).items() if name != "paths"}
        return {"run_id": run_id, "config": json.dumps(settings)}

    wanted, other = run("mine", **{"evaluate.num_prompts": 7}), run("newer", seed=1)
    assert newest_generation_run([wanted, other], config) == wanted
    assert newest_generation_run([other], config) == other
    assert newest_generation_run([], config) is None


@pytest.mark.parametrize(("seconds", "text"), [(7.4, "7 s"), (95, "1 min 35 s"), (3_725, "1 h 2 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "expected"), [(3, [0, 1, 2]), (12, list(range(12))), (23, list(range(0, 23, 2)))])
def test_the_wall_is_taken_evenly(count, expected):
    assert spread(list(range(count)), 12) == expected
