"""Deployed runs: a skipped one ends with the reason, the first night is left to the training.

`tests/end_to_end/test_deployments.py` has real schedules and events.
"""

import socket
from importlib import import_module

import httpx
import pytest
from prefect import flow
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import commit
from flows.cli.run import FLOWS
from flows.runtime import deployed
from flows.runtime.deployed import TRAINING_LINK, ServerLost, announce, crash_without_server, misses_server, no_catching_up
from flows.runtime.parameters import config_from_parameters
from flows.runtime.prefect_server import PrefectServerFailed
from flows.score_pairs import score_pairs
from flows.tokenize_pairs import tokenize_pairs

pytestmark = pytest.mark.prefect


def test_a_run_whose_server_went_away_has_crashed_and_any_other_error_is_its_failure(prefect_server, monkeypatch):
    @flow(name="lost")
    @crash_without_server
    def ask(error: Exception) -> None:
        raise error

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        site = ValueError("the site does not answer")
        with pytest.raises(httpx.ConnectError) as unanswered:
            httpx.get(f"{away}/page.html")
        site.__cause__ = unanswered.value
        with (
            temporary_settings({PREFECT_API_URL: f"{away}/api"}),
            pytest.raises(httpx.ConnectError) as lost,
            get_client(sync_client=True) as client,
        ):
            client.read_flows()
        assert not misses_server(site)
        with temporary_settings({PREFECT_API_URL: f"{away}/api"}):
            assert misses_server(lost.value)
            assert not misses_server(site)
    with pytest.raises(PrefectServerFailed, match="nobody answers"):
        ask(PrefectServerFailed("nobody answers"))  # not deployed: a person reads this
    monkeypatch.setattr(deployed, "is_deployed", lambda: True)
    with pytest.raises(ServerLost, match="Prefect's server went away: nobody answers"):
        ask(PrefectServerFailed("nobody answers"))
    with pytest.raises(ValueError, match="does not answer"):
        ask(site)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["lost"])), sort=FlowRunSort.START_TIME_ASC)
    assert [run.state.type for run in runs] == [StateType.FAILED, StateType.CRASHED, StateType.FAILED]


def test_every_flow_takes_a_lost_server_for_a_crash():
    for name in FLOWS:
        found = getattr(import_module(f"flows.{name}"), name)
        assert found.fn.__code__.co_qualname.startswith(crash_without_server.__name__), name


def test_a_run_that_need_not_run_ends_as_cancelled_with_the_reason(prefect_server, monkeypatch):
    @flow
    @no_catching_up
    def double(number: int) -> int:
        return 2 * number

    assert double(3) == 6  # not deployed
    reasons = ["", "brave-cat was under way when it was due"]
    monkeypatch.setattr(deployed, "is_deployed", lambda: True)
    monkeypatch.setattr(deployed, "settle", lambda run_id: reasons[0])
    assert double(3) == 6
    reasons.reverse()
    state = double(3, return_state=True)
    assert state.is_cancelled()
    assert state.message == reasons[0]
    with pytest.raises(TypeError):
        double.validate_parameters({"numbr": 3})


def test_what_is_announced_is_what_the_next_deployment_takes(monkeypatch):
    emitted = []
    monkeypatch.setattr(deployed, "emit_event", lambda event, payload, **_: emitted.append(payload))
    monkeypatch.setattr(deployed, "is_deployed", lambda: True)
    schema = parameter_schema(tokenize_pairs.fn).model_dump()
    as_written = {
        "source.inputs": "/photos,/more",
        "train_dvae.max_steps": "6",
        "flow.check_pairs": "false",
        "source.kind": "image_folders",
    }
    with pytest.raises(ValidationError):
        validate({"preset": "demo", "overrides": as_written}, schema, raise_on_error=True)
    announce("pairs", "demo", as_written)
    validate(emitted[0], schema, raise_on_error=True)
    assert config_from_parameters(**emitted[0]) == config_from_parameters("demo", as_written)


def test_the_first_night_is_left_to_the_training_if_that_will_come(prefect_server, monkeypatch, tmp_path):
    emitted = []
    monkeypatch.setattr(deployed, "emit_event", lambda event, **_: emitted.append(event))
    layout, overrides = Layout(tmp_path), {"paths.data_root": str(tmp_path), "flow.check_pairs": False}
    layout.pairs("emoji_scenes").mkdir(parents=True)
    commit(layout.pairs("emoji_scenes"), "inputs", {"pairs_id": "pairs0"})
    trigger = EventTrigger(expect={"never"}, posture=Posture.Reactive, threshold=1)
    link = Automation(name=TRAINING_LINK, trigger=trigger, actions=[DoNothing()]).create()
    with get_client(sync_client=True) as client:
        try:
            with pytest.raises(ValueError, match="there is no dvae for these settings yet"):
                tokenize_pairs("demo", overrides)  # by hand
            monkeypatch.setattr(deployed, "is_deployed", lambda: True)
            monkeypatch.setattr(deployed, "settle", lambda run_id: "")
            assert (tokenize_pairs("demo", overrides), score_pairs("demo", overrides)) == ({}, {})
            assert emitted == ["dalle.tokens.ready", "dalle.scores.ready"]
            client.pause_automation(link.id)
            with pytest.raises(ValueError, match="there is no dvae for these settings yet .*; run `dalle run train_tokenizers`"):
                tokenize_pairs("demo", overrides)
        finally:
            client.delete_automation(link.id)
