"""The examples of `deploy/`: what the tools of this machine can say about them, and that they name what there is."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from flows.operation.site import read_site

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


@pytest.mark.parametrize("name", ["gpu-kubernetes", "gpu-slurm"])
def test_every_variable_of_a_work_pool_is_used_and_every_place_is_filled(name):
    from prefect.utilities.templating import apply_values, find_placeholders

    template = json.loads((DEPLOY / "work-pools" / f"{name}.json").read_text())
    variables = template["variables"]["properties"]
    places = {place.name for place in find_placeholders(template["job_configuration"])}
    assert places == set(variables), "Prefect ignores a variable that nothing refers to"
    filled = apply_values(template["job_configuration"], {key: value.get("default", "given") for key, value in variables.items()})
    if name == "gpu-slurm":
        assert filled["command"].startswith("srun --job-name=dalle --partition=gpu --nodes=1 --ntasks=1 --gpus=1 ")
        return
    spec = filled["job_manifest"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 1, "memory": "64Gi"}
    assert {mount["name"] for mount in spec["containers"][0]["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize("unit", ["dalle.service", "dalle-gpu-worker.service"])
def test_units_are_understood_by_systemd(unit, tmp_path):
    if not (tool := shutil.which("systemd-analyze")):
        pytest.skip("no systemd-analyze here")
    text = (DEPLOY / "systemd" / unit).read_text()
    for program in set(re.findall(r"/srv/open-dalle/\.venv/bin/\w+", text)):  # which this machine lacks
        text = text.replace(program, shutil.which("true") or "/bin/true")
    text = re.sub(r"^(Documentation|User|EnvironmentFile)=.*\n", "", text, flags=re.MULTILINE)
    (tmp_path / unit).write_text(text)
    done = subprocess.run([tool, "verify", "--man=no", str(tmp_path / unit)], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if unit in line]
    assert not said, said


def test_the_containers_fit_together():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = compose["services"]["dalle"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert "127.0.0.1:4200:4200" in service["ports"], "reached from other machines only by those who ask for it"
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    (command,) = re.findall(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)
    site = read_site(ROOT / json.loads(command)[-1])
    assert site.operation.server.auth_file == f"/run/secrets/{service['secrets'][0]}"
    assert [volume.split(":")[1] for volume in service["volumes"]] == [str(site.data_root)]
    assert "@database/" in site.operation.server.database
    assert "database" in compose["services"]
