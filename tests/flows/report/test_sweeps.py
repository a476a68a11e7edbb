"""Sweeps: only runs that differ in one setting are compared."""

from dataclasses import replace

import pytest

from dalle_model.config.presets import preset
from flows.report.data import collect
from flows.report.page import render
from flows.report.sweeps import sweeps, vary


def row(**values):
    ordinary = {
        "prompt_set": "training", "temperature": 1.0, "top_k": None, "top_p": 1.0, "guidance": 1.0, "transformer_id": "tf",
        "one": 0.5, "best_of_8": 0.75, "best_of_32": None,
    }  # fmt: skip
    return ordinary | values


@pytest.fixture(scope="module")
def data(_catalogued_template):
    return collect(_catalogued_template.layout, preset("demo", {"evaluate.num_shown": 1}))


def test_rows_that_differ_in_more_are_not_compared():
    cold, hot = row(temperature=0.5), row(temperature=2.0)
    other = [row(temperature=0.1, transformer_id="another"), row(temperature=0.2, top_p=0.9)]
    assert vary([hot, *other, cold, row()], "temperature") == [cold, row(), hot]
    assert vary([hot, cold], "guidance") == []
    assert vary([row(top_k=None), row(top_k=8)], "top_k") == []
    assert vary([], "top_p") == []


def test_a_chart_shows_the_best_of_most_candidates_against_a_single_picture(data, parse):
    shown = sweeps(replace(data, by_settings=[row(temperature=0.5, best_of_8=0.8), row(), row(prompt_set="birds"), row(guidance=2.0)]))
    assert shown.count("<figure") == 2
    assert "Temperature: best of 8 by CLIP" in shown
    assert "Captions it was trained on from 0.8 to 0.75" in shown
    assert "Guidance (1: none)" in shown
    assert "one picture, not reranked" in shown
    assert parse(shown).open == []


def test_without_reranking_there_is_one_line(data):
    rows = [row(temperature=value, best_of_8=None) for value in (0.5, 1.0)]
    assert "not reranked" not in sweeps(replace(data, by_settings=rows))


def test_one_setting_is_no_sweep(data):
    assert data.by_settings
    assert 'id="settings"' not in render(data)
