"""Site files: what they become, and what is said about those that make no sense."""

from pathlib import Path

import pytest

from flows.operation.deployments import deployments_of
from flows.operation.site import find_site, read_site

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def site_file(tmp_path):
    """Write a site file; returns its path."""

    def write(text: str, folder: str = "birds") -> Path:
        path = tmp_path / folder / "site.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def by_name(site) -> dict[str, dict]:
    """`flow/deployment` -> entry."""
    return {f"{entry['entrypoint'].rpartition('.')[2]}/{entry['name']}": entry for entry in deployments_of(site)["deployments"]}


def test_the_example_is_a_site_and_says_when_its_flows_start():
    site = read_site(ROOT / "deploy" / "site.toml")
    assert site.name == "birds"
    assert site.data_root == ROOT / "deploy" / "birds-data"
    entries = by_name(site)
    parameters = entries["collect_pairs/nightly"]["parameters"]
    assert parameters["preset"] == "small"
    assert parameters["refresh"] is True
    assert parameters["overrides"]["source.name"] == "birds"
    assert parameters["overrides"]["networks.policy"] == "if_better"
    assert parameters["overrides"]["paths.data_root"] == str(site.data_root)
    (collect,) = entries["collect_pairs/nightly"]["schedules"]
    assert (collect["cron"], collect["active"], collect["timezone"]) == ("17 1 * * *", True, "UTC")
    (maintain,) = entries["maintain_catalog/nightly"]["schedules"]
    assert (maintain["cron"], maintain["active"]) == ("17 5 * * *", True)
    (score,) = entries["score_pairs/nightly"]["schedules"]
    assert score["active"] == "{{ is_active.score_pairs }}", "what the file leaves out stays as its operator left it"
    assert entries["tokenize_pairs/nightly"]["triggers"][0]["enabled"] is True
    assert "is_on" in entries["evaluate_model/batch"]["triggers"][0]["enabled"]
    assert entries["retrain_networks/nightly"]["parameters"]["overrides"]["networks.retrain_growth"] == 0.2
    assert "parameters" not in entries["run_job/gpu"]


def test_several_sources_have_deployments_each_and_one_chain(site_file):
    site = read_site(
        site_file(
            """
            preset = "small"
            [[sources]]
            name = "birds"
            start_urls = ["https://example.org/birds/"]
            [[sources]]
            name = "fish"
            kind = "image_folders"
            inputs = ["/srv/fish"]
            """
        )
    )
    entries = by_name(site)
    assert entries["collect_pairs/nightly"]["parameters"]["overrides"]["source.start_urls"] == ["https://example.org/birds/"]
    assert entries["collect_pairs/nightly-fish"]["parameters"]["overrides"]["source.inputs"] == ["/srv/fish"]
    assert "triggers" in entries["tokenize_pairs/nightly"]
    assert "triggers" not in entries["tokenize_pairs/nightly-fish"], "else each collection would start the chain twice"
    assert len([name for name in entries if name.startswith("run_job")]) == 2


def test_without_a_file_the_data_root_and_its_settings_are_the_site(tmp_path, monkeypatch, site_file):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DALLE_DATA_ROOT", str(tmp_path / "birds"))
    site = find_site()
    assert (site.name, site.data_root, site.parameters[0][0]) == ("birds", tmp_path / "birds", "demo")
    assert find_site(site_file('preset = "small"')).configs[0].preset == "small"
    monkeypatch.chdir(tmp_path / "birds")
    assert find_site().path == tmp_path / "birds" / "site.toml"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schedule.collect_pairs = 'on'", "schedule: no such section or key; did you mean 'schedules'"),
        ("[schedules]\ncollect_pair = 'on'", "schedules.collect_pair: no such setting; did you mean 'schedules.collect_pairs'"),
        (
            "[schedules]\ncollect_pairs = 'nightly'",
            'schedules.collect_pairs = "nightly": say "on", "off", or a cron time that comes',
        ),
        ("[schedules]\ncollect_pairs = '0 3 31 2 *'", 'schedules.collect_pairs = "0 3 31 2 .* or a cron time that comes'),
        ("[schedules]\ncollect_pairs = '99 99 * * *'", 'schedules.collect_pairs = "99 99 .* or a cron time that comes'),
        ("[links]\ntokenize_new_pairs = true", "links.tokenize_new_pairs: True is not one of '', 'on', 'off'"),
        ("[source]\nnmae = 'birds'", "source.nmae: no such setting; did you mean 'source.name'"),
        ("preset = 'smal'", "did you mean 'small'"),
        ("[paths]\ndata_root = 'x'", r"\[paths\]: say data_root = … at the top"),
        ("[server]\nhost = '0.0.0.0'", "server.host=0.0.0.0 can be reached from other machines, .* set server.auth_file"),
        ("[server]\ndatabase = 'sqlite:///x'", r"server.database=sqlite:///x: say postgresql\+asyncpg://"),
        ("[server]\nport = 0", r"port=0 must be in \[1, 65,535\]"),
        ("name = 'two words'", 'name = "two words": letters, digits and "-" only'),
        ("version = 2", "version = 2 of the site file, and this open-dalle reads 1"),
        ("[[sources]]\nname = 'a'\n[[sources]]\nname = 'a'", "two of .* are named 'a'"),
        ("[source]\nname = 'b'\n[[sources]]\nname = 'a'", "source.name and .* both say what is collected"),
        ("[source", "not a readable site file .*deploy/site.toml is an example"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_file_and_the_key(site_file, text, says):
    path = site_file(text)
    with pytest.raises(ValueError, match=f"^{path}: .*{says}"):
        read_site(path)


def test_a_password_is_for_its_owner_only(site_file):
    path = site_file("[server]\nhost = '0.0.0.0'\nauth_file = 'auth'")
    secret = path.parent / "auth"
    with pytest.raises(ValueError, match="auth: cannot be read .*; write USER:PASSWORD into it"):
        _ = read_site(path).auth
    secret.write_text("night:watch\n")
    secret.chmod(0o644)
    with pytest.raises(ValueError, match="others may read it; `chmod 600"):
        _ = read_site(path).auth
    secret.chmod(0o600)
    assert read_site(path).auth == "night:watch"
    secret.write_text("nightwatch")
    with pytest.raises(ValueError, match="does not hold USER:PASSWORD"):
        _ = read_site(path).auth
