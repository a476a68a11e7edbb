"""prefect.yaml is code: `prefect deploy` ignores keys it does not know, so a slip of the pen would go unnoticed. No server here."""

from pathlib import Path

import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.cli.run import FLOWS

ROOT = Path(__file__).resolve().parents[2]
FILE = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS = {f"{entry['entrypoint'].rpartition('.')[2]}/{entry['name']}": entry for entry in FILE["deployments"]}

RIGHT = {"overrides": {"transformer.num_layers": 8, "train_dvae.min_log_scale": None, "source.inputs": ["a"], "networks.policy": "manual"}}
WRONG = [{"preset": "smal"}] + [
    {"overrides": {name: value}}
    for name, value in {"transformer.num_layer": 8, "transformer.num_layers": "x", "networks.policy": "never", "source.inputs": "a"}.items()
]

TOP_KEYS = {"name", "prefect-version", "build", "push", "pull", "definitions", "deployments"}
KEYS = {
    "name", "description", "entrypoint", "tags", "parameters", "enforce_parameter_schema", "schedules", "concurrency_limit", "work_pool",
    "triggers",
}  # fmt: skip
SCHEDULE_KEYS = {"cron", "timezone", "active", "slug", "parameters"}


def test_only_keys_that_prefect_knows():
    assert set(FILE) <= TOP_KEYS
    for name, entry in DEPLOYMENTS.items():
        assert set(entry) <= KEYS, f"{name}: {set(entry) - KEYS}"
        assert set(entry["work_pool"]) <= {"name", "work_queue_name", "job_variables"}
        for schedule in entry.get("schedules", []):
            assert set(schedule) <= SCHEDULE_KEYS


def test_every_link_of_the_chain_can_be_switched_and_waits_for_something_that_is_announced():
    import re

    from prefect.events import DeploymentEventTrigger

    triggers = [trigger for entry in DEPLOYMENTS.values() for trigger in entry.get("triggers", [])]
    announced = {what for path in (ROOT / "flows").glob("*.py") for what in re.findall(r'announce\("(\w+)"', path.read_text())}
    assert {what for trigger in triggers for what in trigger["expect"]} == {f"dalle.{what}.ready" for what in announced}
    (step,) = [step[name] for step in FILE["build"] for name in step if name.endswith("read_link_states")]
    assert [trigger["name"] for trigger in triggers] == step["links"]
    for trigger in triggers:
        assert trigger["enabled"] == f"{{{{ is_on.{trigger['name'].replace('-', '_')} }}}}", "a deploy leaves links as they are"
        DeploymentEventTrigger.model_validate({**trigger, "enabled": False})


def test_every_flow_is_deployed_once_under_each_name():
    assert len(DEPLOYMENTS) == len(FILE["deployments"])
    assert {name.partition("/")[0] for name in DEPLOYMENTS} == {*FLOWS, "run_job"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_entrypoint_exists_and_takes_the_parameters(name):
    from prefect.flows import load_flow_from_entrypoint

    entry = DEPLOYMENTS[name]
    flow = load_flow_from_entrypoint(entry["entrypoint"])
    assert flow.name.replace("-", "_") == name.partition("/")[0]
    if "parameters" in entry:
        flow.validate_parameters(entry["parameters"])
    with pytest.raises(TypeError):  # Prefect's ParameterBindError: the signature is strict
        flow.validate_parameters({**entry.get("parameters", {}), "presett": "demo"})
    for wrong in WRONG if "parameters" in entry else ():
        given = {**entry["parameters"], **wrong}
        with pytest.raises(ValidationError):  # as the server does when a run is asked for
            validate(given, parameter_schema(flow.fn).model_dump(), raise_on_error=True)
    given = {"job": "train_dvae", "run_dir": "runs/x"} if name.startswith("run_job") else {**entry["parameters"], **RIGHT}
    validate(given, parameter_schema(flow.fn).model_dump(), raise_on_error=True)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pools_queues_and_schedules_exist(name):
    from prefect.client.schemas.schedules import CronSchedule

    from flows import bootstrap

    entry = DEPLOYMENTS[name]
    pool = entry["work_pool"]
    assert pool["name"] in bootstrap.POOLS
    assert pool["work_queue_name"] in {"default", *bootstrap.QUEUES[pool["name"]]}
    for schedule in entry.get("schedules", []):
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        assert schedule["slug"], "without a slug every deploy would add the schedule again"
        flow = name.partition("/")[0]
        assert schedule["active"] == f"{{{{ is_active.{flow} }}}}", "a deploy leaves on what an operator switched on, and nothing else"


@pytest.mark.parametrize(
    ("environment", "exempt"),
    [
        ({"HTTPS_PROXY": "http://proxy:3128"}, "localhost,127.0.0.1,::1"),
        ({"all_proxy": "socks5://proxy", "NO_PROXY": "intra.example, 127.0.0.1"}, "intra.example,127.0.0.1,localhost,::1"),
        ({"http_proxy": "http://proxy", "no_proxy": "*"}, "*"),
        ({"NO_PROXY": "intra.example"}, None),
        ({"HTTP_PROXY": ""}, None),
    ],
)
def test_loopback_is_never_proxied(environment, exempt):
    from flows import spare_loopback

    before = dict(environment)
    spare_loopback(environment)
    assert environment == (before if exempt is None else {**before, "no_proxy": exempt, "NO_PROXY": exempt})


def test_a_worker_goes_to_its_own_checkout_and_refuses_other_code(monkeypatch, tmp_path):
    from flows import deploy_steps

    (step,) = FILE["pull"]
    assert step == {"flows.deploy_steps.enter_checkout": {"version": "{{ code.version }}"}}, "nothing of the deploying machine"
    monkeypatch.chdir(tmp_path)
    deployed = deploy_steps.read_code_version()
    monkeypatch.delenv("DALLE_HOME", raising=False)
    assert deploy_steps.enter_checkout(**deployed) == {"directory": str(ROOT)}
    assert Path.cwd() == ROOT
    monkeypatch.setenv("DALLE_HOME", str(tmp_path))
    deploy_steps.enter_checkout(**deployed)
    assert Path.cwd() == tmp_path
    with pytest.raises(
        ValueError, match=r"other code \(.*\) than what was deployed \(0.0.1\+0\); bring its checkout up to date, or deploy"
    ):
        deploy_steps.enter_checkout("0.0.1+0")


def test_gpu_machines_run_nothing_but_jobs():
    on_gpu = {name for name, entry in DEPLOYMENTS.items() if entry["work_pool"]["name"] == "gpu"}
    assert on_gpu == {"run_job/gpu"}


def test_the_cli_applies_the_same_prefect_settings_as_pyproject():
    """Prefect reads pyproject.toml only from the current directory; `dalle` must behave the same from anywhere."""
    import tomllib

    from flows.runtime.prefect_server import SETTINGS

    def flatten(node, path):
        if isinstance(node, dict):
            return {name: text for key, value in node.items() for name, text in flatten(value, f"{path}_{key}").items()}
        return {path.upper(): str(node).lower()}

    configured = flatten(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["prefect"], "PREFECT")
    assert configured == SETTINGS
    of_runs = {name: value for name, value in configured.items() if not name.startswith("PREFECT_SERVER_")}
    for name, entry in DEPLOYMENTS.items():
        given = entry["work_pool"]["job_variables"]["env"]
        assert {setting: given.get(setting) for setting in of_runs} == of_runs, f"{name}: a worker may be started anywhere"
