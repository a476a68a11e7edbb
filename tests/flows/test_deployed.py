"""Deployed runs: a skipped one ends with the reason. `tests/end_to_end/test_deployments.py` has real schedules and events."""

import pytest
from prefect import flow

from flows.runtime import deployed
from flows.runtime.deployed import no_catching_up

pytestmark = pytest.mark.prefect


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
