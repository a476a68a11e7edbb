"""The playground's server: what it draws and finds, what it refuses, who waits and who may come in."""

import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from dalle_model.generated.image_files import read_origin
from flows.app import line as lines
from flows.app import server
from flows.app.access import SAFE_HEADERS
from flows.app.line import Line
from flows.cli.app import with_folder
from open_dalle import DALLE


def client_of(playground, token=None, base="http://127.0.0.1:7860"):
    return TestClient(server.make_app(playground, token), base_url=base, follow_redirects=False)


def events(answer):
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def png(size=(32, 32), color="red"):
    buffer = BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def pixels(src):
    return np.asarray(Image.open(BytesIO(base64.b64decode(src.partition(",")[2]))))


@pytest.fixture
def folder_client(make_playground):
    with client_of(make_playground()) as client:
        yield client


@pytest.fixture
def root_client(make_playground, catalogued_root):
    with client_of(make_playground(catalogued_root.layout)) as client:
        yield client


def test_pictures_grow_row_by_row_and_are_those_of_the_python_api(folder_client, model_folder, tmp_path):
    asked = {"prompt": "a red apple", "num_images": 3, "seed": 5, "temperature": 0.7}
    first, *rows, last = events(folder_client.post("/api/draw", json=asked))
    assert first == {"event": "start"}
    assert [(row["rows"], row["of"], row["candidates"]) for row in rows] == [(i, 4, [0, 1, 2]) for i in (1, 2, 3, 4)]
    assert pixels(rows[1]["sheet"]).shape == (3 * 16, 32, 3)  # two of four rows of three pictures, one above the other
    expected = DALLE.load(model_folder).generate("a red apple", 3, seed=5, temperature=0.7)
    drawn = last["pictures"]
    assert [picture["score"] for picture in drawn] == sorted((picture["score"] for picture in drawn), reverse=True)
    for picture, wanted in zip(drawn, expected, strict=True):
        assert np.array_equal(pixels(picture["src"]), np.asarray(wanted.image))
        whole = pixels(rows[3]["sheet"])[32 * picture["candidate"] : 32 * (picture["candidate"] + 1)]
        assert np.array_equal(whole, np.asarray(wanted.image))
    saved = tmp_path / "saved.png"
    saved.write_bytes(base64.b64decode(drawn[0]["src"].partition(",")[2]))
    assert read_origin(saved) == {"prompt": "a red apple", "seed": expected[0].seed, **networks_of(folder_client, drawn[0]["id"])}


def networks_of(client, picture_id):
    facts = dict(client.post("/api/lineage", json={"id": picture_id}).json()["facts"])
    names = ("model", "tokenizer", "dvae", "clip", "transformer")
    assert facts["transformer learned from"] == "12 pairs of web (run run-1)"
    return {f"{name}_id": facts[name] for name in names}


def test_the_same_request_gives_the_same_pictures_and_another_seed_others(folder_client):
    def draw(**more):
        return [picture["src"] for picture in events(folder_client.post("/api/draw", json={"prompt": "an owl", **more}))[-1]["pictures"]]

    assert draw(seed=1) == draw(seed=1)
    assert draw(seed=1) != draw(seed=2)
    assert len(draw(seed=1)) == 16


def test_a_picture_is_completed_from_its_upper_rows(folder_client):
    asked = {"prompt": "an owl", "num_images": 2, "image": png(color="navy"), "image_prompt_share": 0.5}
    pictures = events(folder_client.post("/api/draw", json=asked))[-1]["pictures"]
    tokens = events(folder_client.post("/api/reconstruct", json={"image": png(color="navy")}))[-1]["tokens"]
    drawn = [folder_client.app.state.playground.studio.find(picture["id"]).picture.image_tokens.tolist() for picture in pictures]
    assert drawn[0][:8] == drawn[1][:8] == tokens[:8]  # two of four rows
    assert drawn[0][8:] != drawn[1][8:]
    facts = dict(folder_client.post("/api/lineage", json={"id": pictures[0]["id"]}).json()["facts"])
    assert facts["picture"] == "drawn here and not kept; completed from the upper 50% of a picture"


def test_a_picture_is_shown_with_its_tokens(folder_client):
    *_, found = events(folder_client.post("/api/reconstruct", json={"image": png((90, 40))}))
    assert (len(found["tokens"]), found["grid"], pixels(found["original"]).shape) == (16, 4, (32, 32, 3))
    assert np.isfinite(found["psnr"])


def chunk(kind, data):
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


HEADER = (200_000).to_bytes(4) * 2 + bytes([1, 0, 0, 0, 0])
BOMB = base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", HEADER) + chunk(b"IDAT", zlib.compress(b""))).decode()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "choose a picture first"),
        ("", "choose a picture first"),
        (7, "choose a picture first"),
        ("no base64!", "the picture did not arrive whole (it is not valid base64); send it again"),
        (base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(), "this picture cannot be read: an SVG drawing"),
        (base64.b64encode(b"%!PS-Adobe").decode(), "this picture cannot be read: PostScript"),
        (png((8000, 8000)), "this picture cannot be read: 8000 x 8000, 40000000 pixels allowed"),
        (png()[:80], "this picture cannot be read"),
        (BOMB, "this picture cannot be read: 40,000,000,000 pixels"),
    ],
    ids=["none", "empty", "number", "base64", "svg", "postscript", "pixels", "torn", "bomb"],
)
@pytest.mark.parametrize("path", ["reconstruct", "draw"])
def test_bad_uploads_are_refused_with_a_sentence(folder_client, path, image, said):
    if path == "draw" and image is None:
        return  # drawing needs no picture
    answer = folder_client.post(f"/api/{path}", json={"prompt": "an owl", "num_images": 1, "image": image})
    detail = answer.json()["detail"] if answer.status_code == 400 else events(answer)[-1]["detail"]
    assert said in detail
    assert "Traceback" not in detail
    assert events(folder_client.post("/api/reconstruct", json={"image": png()}))[-1]["event"] == "tokens"  # and it goes on


def test_an_upload_that_is_too_long_is_not_read_to_its_end(folder_client, monkeypatch):
    monkeypatch.setattr(server, "MAX_BODY_BYTES", 3_000)
    read = 0

    def body():
        nonlocal read
        for _ in range(1_000):
            read += 1_000
            yield b"x" * 1_000

    answer = folder_client.post("/api/draw", content=body(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "the request is too long; a picture may have 8 MB")
    monkeypatch.undo()
    monkeypatch.setattr(server, "MAX_UPLOAD_BYTES", 2**20)
    long = base64.b64encode(b"x" * (2**20 + 1)).decode()
    assert "the picture has 1.0 MB; 1 MB are read at most" in folder_client.post("/api/reconstruct", json={"image": long}).text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "say what the picture should show"),
        ({"prompt": " "}, "say what the picture should show"),
        ({"prompt": "a " * 1_001}, "the caption has 2,002 characters; 2,000 are read at most"),
        ({"prompt": "an owl", "num_images": 65}, "num_images=65 must be a whole number from 1 to 64"),
        ({"prompt": "an owl", "num_images": True}, "num_images=True must be a whole number"),
        ({"prompt": "an owl", "seed": -1}, "seed=-1 must be a whole number"),
        ({"prompt": "an owl", "temperature": 0}, "temperature=0.0 must be positive"),
        ({"prompt": "an owl", "temperature": "hot"}, "temperature must be a number"),
        ({"prompt": "an owl", "top_p": 1.5}, "top_p=1.5 must be in (0, 1]"),
        ({"prompt": "an owl " * 40}, "tokens, but the transformer reads 16; shorten it"),
        ([], "the request must be a JSON object"),
    ],
)
def test_what_cannot_be_drawn_is_said(folder_client, body, said):
    answer = folder_client.post("/api/draw", json=body)
    assert said in (answer.json()["detail"] if answer.status_code == 400 else events(answer)[-1]["detail"])


def test_json_that_is_none_or_in_disguise_is_refused(folder_client):
    json_type = {"content-type": "application/json"}
    for content in (b"{", b"[" * 100_000, b'{"prompt": "an owl", "temperature": NaN}', b"\xff"):
        assert "the request is not valid JSON" in folder_client.post("/api/draw", content=content, headers=json_type).text
    plain = folder_client.post("/api/draw", content=b'{"prompt": "an owl"}', headers={"content-type": "text/plain"})
    assert "must be JSON (Content-Type: application/json)" in plain.text


def test_pairs_are_found_by_words_by_clip_and_by_tokens(root_client, catalogued_root):
    (pair, *_) = catalogued_root.pairs
    words = " ".join(reversed(pair["caption"].upper().split()[-3:]))
    found = root_client.post("/api/pairs-by-words", json={"text": words}).json()["pairs"]
    assert str(pair["pair_id"]) in [str(row["pair_id"]) for row in found]
    assert pixels(found[0]["src"]).shape[2] == 3
    by_clip = events(root_client.post("/api/pairs-by-clip", json={"text": "an owl"}))[-1]["pairs"]
    likeness = [row["clip_similarity"] for row in by_clip]
    assert likeness == sorted(likeness, reverse=True)
    by_tokens = events(root_client.post("/api/pairs-by-tokens", json={"image": png()}))[-1]["pairs"]
    assert by_tokens[0]["share_equal"] >= by_tokens[-1]["share_equal"]
    assert events(root_client.post("/api/pairs-by-clip", json={"text": " "}))[-1]["detail"] == "say what the pictures should show"


def test_a_token_leads_to_the_pairs_that_use_it(root_client):
    found = root_client.post("/api/pairs-by-token", json={"token": 5}).json()
    assert found["grid"] == 4
    assert all(len(row["places"]) == row["occurrences"] > 0 for row in found["pairs"])
    assert pixels(found["pairs"][0]["src"]).shape == (32, 32, 3)
    assert "token=32 must be a whole number below 32" in root_client.post("/api/pairs-by-token", json={"token": 32}).text


def test_kept_pictures_open_their_lineage(root_client, catalogued_root):
    about = root_client.get("/api/about").json()
    (run,) = about["catalog"]["runs"]
    pictures = root_client.post("/api/gallery", json={"run_id": run}).json()["pictures"]
    assert len(pictures) == 6
    found = root_client.post("/api/lineage", json={"generation_id": pictures[0]["generation_id"]}).json()
    facts = dict(found["facts"])
    assert (facts["prompt"], facts["transformer"]) == (pictures[0]["prompt"], "tf0")
    assert "select" in facts["training set query"]
    assert len(found["nearest"]) == 8
    assert "has no generation_id 'x'" in root_client.post("/api/lineage", json={"generation_id": "x"}).text


def test_a_picture_drawn_here_leads_to_the_training_set_and_the_nearest_pairs(root_client):
    picture = events(root_client.post("/api/draw", json={"prompt": "an owl", "num_images": 1}))[-1]["pictures"][0]
    found = root_client.post("/api/lineage", json={"id": picture["id"]}).json()
    facts = dict(found["facts"])
    assert (facts["picture"], facts["rank by CLIP"], facts["sources"]) == ("drawn here and not kept", "1", "emoji_scenes")
    assert 6 <= len(found["nearest"]) <= 12
    assert "is not known any more" in root_client.post("/api/lineage", json={"id": "0" * 16}).text


def test_named_queries_are_run_with_parameters_and_nothing_else_is(root_client, catalogued_root):
    ask = {"name": "funnel", "params": {"source": ""}}
    found = root_client.post("/api/query", json=ask).json()
    assert (found["columns"][1], found["num_rows"]) == ("stage", 5)
    pair = root_client.post("/api/query", json={"name": "pair", "params": {"pair_id": str(catalogued_root.pairs[0]["pair_id"])}}).json()
    assert pair["rows"][0][0] == str(catalogued_root.pairs[0]["pair_id"])  # too large for JavaScript's numbers
    assert "did you mean 'funnel'" in root_client.post("/api/query", json={"name": "funel"}).text
    assert "does not exist" in root_client.post("/api/query", json={"name": "select 1"}).text
    assert "is not an integer" in root_client.post("/api/query", json={"name": "pair", "params": {"pair_id": "1 or 1"}}).text
    assert "root is filled in" in root_client.post("/api/query", json={"name": "gallery", "params": {"root": "/"}}).text
    assert "must be texts" in root_client.post("/api/query", json={"name": "funnel", "params": {"source": ["a"]}}).text


def test_a_model_folder_knows_no_pairs(folder_client):
    about = folder_client.get("/api/about").json()
    assert (about["catalog"], about["model"]["grid"], about["title"]) == (None, 4, "owls")
    assert "a model folder knows no pairs; start `dalle app` with the data root" in folder_client.post("/api/gallery", json={}).text


class Slow:
    """Work that goes on until it is told."""

    def __init__(self):
        self.began, self.may_end = threading.Event(), threading.Event()
        self.left = False

    def __call__(self, tell):
        self.began.set()
        try:
            while not self.may_end.wait(0.01):
                tell({"event": "still"})
        except lines.Left:
            self.left = True
            raise
        tell({"event": "done"})


def test_several_wait_in_line_and_are_told_their_place(make_playground, monkeypatch):
    playground = make_playground()
    slow = Slow()
    monkeypatch.setitem(server.STREAMS, "slow", lambda here, body: slow)
    said = {}

    def visit(name):
        said[name] = events(client.post("/api/reconstruct", json={"image": png()}))

    with client_of(playground) as client:
        first = threading.Thread(target=lambda: said.update(first=events(client.post("/api/slow", json={}))))
        first.start()
        assert slow.began.wait(10)
        others = []
        for number, name in enumerate(("second", "third"), 1):
            others.append(threading.Thread(target=visit, args=(name,)))
            others[-1].start()
            deadline = time.monotonic() + 10
            while len(playground.line._waiting) < number:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        slow.may_end.set()
        for thread in (first, *others):
            thread.join(30)
    assert said["first"][-1] == {"event": "done"}
    assert said["second"][0] == {"event": "place", "place": 1, "waiting": 1}
    places = [event["place"] for event in said["third"] if event["event"] == "place"]
    assert (places[0], places[-1]) == (2, 1)
    assert said["third"][-1]["event"] == said["second"][-1]["event"] == "tokens"


def test_a_full_line_and_who_goes_away(make_playground, monkeypatch):
    import asyncio

    monkeypatch.setattr(lines, "MAX_WAITING", 1)
    line, slow = Line(), Slow()

    async def play():
        ticket = line.join(slow)
        await asyncio.to_thread(slow.began.wait, 10)
        waiting = line.join(lambda tell: tell({"event": "done"}))
        with pytest.raises(lines.LineFull, match="1 people are waiting already; try again in a minute"):
            line.join(lambda tell: None)
        told = ticket.events()
        await anext(told)
        await told.aclose()  # as when a browser closes the connection
        return [event async for event in waiting.events()]

    assert asyncio.run(play())[-1] == {"event": "done"}
    assert slow.left
    line.close()


def test_what_breaks_is_said_and_the_next_one_is_served(make_playground, monkeypatch, caplog):
    playground = make_playground()
    monkeypatch.setattr(playground.studio, "reconstruct", lambda data, tell: 1 / 0)
    with client_of(playground) as client:
        assert "something broke here" in events(client.post("/api/reconstruct", json={"image": png()}))[-1]["detail"]
        assert events(client.post("/api/draw", json={"prompt": "an owl", "num_images": 1}))[-1]["event"] == "ranked"
    assert "ZeroDivisionError" in caplog.text


def test_a_token_is_asked_for_and_kept_in_a_cookie_scripts_cannot_read(make_playground):
    with client_of(make_playground(), token="s3cret", base="http://example.org") as client:
        assert client.get("/api/about").status_code == 401
        assert "This playground asks for a token" in client.get("/").text
        assert "That is not the token" in client.get("/enter?token=wrong").text
        assert client.get("/api/about", headers={"cookie": "dalle_app=wrong"}).status_code == 401
        assert client.get("/api/about", headers={"cookie": b"dalle_app=\xe9"}).status_code == 401
        entered = client.get("/enter?token=s3cret")
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/api/about").status_code == 200


def test_pages_of_other_sites_can_ask_for_nothing(folder_client):
    elsewhere = folder_client.get("/api/about", headers={"host": "evil.example:7860"})
    assert (elsewhere.status_code, "at localhost only" in elsewhere.text) == (403, True)
    for name in ("localhost:7860", "[::1]:7860", "127.0.0.1"):
        assert folder_client.get("/", headers={"host": name}).status_code == 200
    forged = folder_client.post("/api/draw", json={"prompt": "an owl"}, headers={"origin": "http://evil.example"})
    assert (forged.status_code, "a page of another site" in forged.text) == (403, True)
    assert folder_client.request("DELETE", "/").status_code == 405


def test_every_answer_forbids_what_the_page_does_not_need(folder_client):
    for path in ("/", "/app.js", "/api/about", "/nowhere", "/enter"):
        headers = folder_client.get(path).headers
        assert {name: headers[name] for name in SAFE_HEADERS} == SAFE_HEADERS, path
    page = folder_client.get("/").text
    assert "script-src 'self';" in SAFE_HEADERS["Content-Security-Policy"]
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|https?://|style=", page)
    assert not re.search(r"innerHTML|insertAdjacentHTML|\beval\(|https?://[a-z]", folder_client.get("/app.js").text)
    assert folder_client.get("/../server.py").status_code == 404
    assert folder_client.get("/%2e%2e/server.py").status_code == 404


def test_the_command_serves_and_ends_with_ctrl_c(model_folder):
    command = [sys.executable, "-c", "from flows.cli.main import main; main()", "app", "--model", str(model_folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        try:
            said = process.stderr.readline()
            port = int(re.fullmatch(r"dalle: the playground for owls is at http://127\.0\.0\.1:(\d+)/\n", said)[1])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/api/about")
            assert json.loads(connection.getresponse().read())["title"] == "owls"
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            assert (process.wait(20), rest) == (0, "dalle: the playground has ended\n")
        finally:
            process.kill()


def test_a_shipped_model_is_played_with_by_its_name(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("dalle_model.model_folder.SHIPPED", model_folder.parent)
    monkeypatch.chdir(tmp_path)
    assert with_folder(Path("owls"), {"sampling.top_k": "3"}).studio.describe()["top_k"] == 3
    with pytest.raises(ValueError, match="no-such is no model folder"):
        with_folder(Path("no-such"), {})
