// The playground's page. Text of strangers goes in as text, never as HTML.

const $ = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};
let about = null;
let drawing = null; // AbortController of the drawing under way
let completing = null; // base64 of the picture to complete
const PIXEL_ART = 64;
const ROW_MS = 50; // a row of a small model would come and go unseen
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// ---- talking to the server

async function post(path, body, signal) {
  const response = await fetch(`/api/${path}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  });
  if (!response.ok) {
    const isJson = (response.headers.get("content-type") || "").includes("json");
    throw new Error(isJson ? (await response.json()).detail : await response.text());
  }
  return response;
}

const ask = async (path, body) => (await post(path, body)).json();

async function* stream(path, body, signal) {
  const reader = (await post(path, body, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.event === "error") throw new Error(event.detail);
      yield event;
    }
  }
}

function say(id, text, isBad = false) {
  $(id).textContent = text;
  $(id).classList.toggle("bad", isBad);
}

const complain = (id) => (error) => {
  if (error.name !== "AbortError") say(id, error instanceof TypeError ? "the playground does not answer; is `dalle app` still running?" : error.message, true);
};

const inLine = (event) => (event.place === 1 ? "Next in line …" : `Waiting: place ${event.place} of ${event.waiting} in line …`);

async function readFile(file) {
  if (file.size > about.max_upload_mb * 2 ** 20) {
    throw new Error(`${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MB; ${about.max_upload_mb} MB are read at most`);
  }
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
  return { url: URL.createObjectURL(file), base64: url.slice(url.indexOf(",") + 1) };
}

const base64Of = (src) => src.slice(src.indexOf(",") + 1);

// ---- tabs

function open(name) {
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    const isOpen = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", isOpen);
    tab.tabIndex = isOpen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !isOpen;
  }
  history.replaceState(null, "", `#${name}`);
  if (name === "kept" && !$("kept-list").childElementCount) showRun();
  if (name === "pairs" && !$("pairs-list").childElementCount) findByWords("");
}

$("tabs").addEventListener("click", (event) => event.target.closest("button") && open(event.target.closest("button").getAttribute("aria-controls")));
$("tabs").addEventListener("keydown", (event) => {
  const tabs = [...document.querySelectorAll('[role="tab"]')].filter((tab) => !tab.parentElement.hidden);
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
  next.focus();
  open(next.getAttribute("aria-controls"));
});

// ---- drawing

$("draw-form").addEventListener("submit", (event) => {
  event.preventDefault();
  draw();
});

function wishes() {
  const form = $("draw-form").elements;
  if (form.new_seed.checked && drawing) form.seed.value = Math.floor(Math.random() * 2 ** 31);
  const number = (name) => (form[name].value === "" ? null : Number(form[name].value));
  const body = { prompt: form.prompt.value };
  for (const name of ["num_images", "seed", "temperature", "top_p", "top_k", "guidance"]) if (number(name) !== null) body[name] = number(name);
  if (completing) Object.assign(body, { image: completing, image_prompt_share: number("image_prompt_share") });
  return body;
}

async function draw() {
  const body = wishes();
  drawing?.abort();
  drawing = new AbortController();
  const { signal } = drawing;
  const tiles = Array.from({ length: body.num_images || 16 }, (_, i) => {
    const canvas = make("canvas", { width: about.model.image_size, height: about.model.image_size });
    canvas.classList.toggle("pixel", about.model.image_size <= PIXEL_ART);
    const button = make("button", { disabled: true, type: "button" }, canvas);
    button.setAttribute("aria-label", `Candidate ${i + 1}, being drawn`);
    return make("li", {}, button, make("div", { className: "rank" }));
  });
  $("candidates").replaceChildren(...tiles);
  say("draw-status", "Asking …");
  const started = performance.now();
  let first = null;
  try {
    for await (const event of stream("draw", body, signal)) {
      if (event.event === "place") say("draw-status", inLine(event));
      if (event.event === "start") say("draw-status", "Reading the caption …");
      if (event.event === "rows") {
        await Promise.all([showRows(tiles, event, signal), sleep(ROW_MS)]);
        first ??= (performance.now() - started) / 1000;
        say("draw-status", `Row ${event.rows} of ${event.of}`);
      }
      if (event.event === "ranked") {
        await rank(tiles, event.pictures, body);
        const took = `${((performance.now() - started) / 1000).toFixed(1)} s, the first rows after ${(first ?? 0).toFixed(1)} s`;
        say("draw-status", `${tiles.length} candidates in CLIP's order, the best first. Seed ${body.seed ?? about.model.seed}; ${took}.`);
      }
    }
  } catch (error) {
    complain("draw-status")(error);
  }
}

async function showRows(tiles, event, signal) {
  const sheet = new Image();
  sheet.src = event.sheet;
  await sheet.decode();
  if (signal.aborted) return;
  const height = sheet.naturalHeight / event.candidates.length;
  event.candidates.forEach((candidate, i) => {
    const canvas = tiles[candidate].querySelector("canvas");
    canvas.getContext("2d").drawImage(sheet, 0, i * height, canvas.width, height, 0, 0, canvas.width, height);
  });
}

async function rank(tiles, pictures, body) {
  const before = new Map(tiles.map((tile) => [tile, tile.getBoundingClientRect()]));
  const ordered = await Promise.all(pictures.map(async (picture, i) => {
    const tile = tiles[picture.candidate];
    const image = new Image();
    image.src = picture.src;
    await image.decode();
    tile.querySelector("canvas").getContext("2d").drawImage(image, 0, 0);
    const button = tile.querySelector("button");
    button.disabled = false;
    button.setAttribute("aria-label", `${body.prompt}: place ${i + 1} by CLIP; where does it come from?`);
    button.onclick = () => showDrawn(picture, body);
    tile.querySelector(".rank").append(make("b", { textContent: i + 1 }), make("span", { textContent: picture.score.toFixed(3), title: "CLIP score" }));
    tile.classList.toggle("best", i === 0);
    return tile;
  }));
  $("candidates").replaceChildren(...ordered);
  for (const tile of ordered) {
    const [from, to] = [before.get(tile), tile.getBoundingClientRect()];
    tile.style.transition = "none";
    tile.style.transform = `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
  }
  requestAnimationFrame(() => requestAnimationFrame(() => {
    for (const tile of ordered) tile.style.transition = tile.style.transform = "";
  }));
}

// ---- completing

function setCompleting(url, base64) {
  completing = base64;
  $("complete-preview").hidden = $("complete-clear").hidden = !base64;
  if (base64) {
    $("complete-image").src = url;
    $("complete").open = true;
  } else {
    $("complete-file").value = "";
  }
}

function showShare() {
  const { grid } = about.model;
  const rows = Math.max(1, Math.round($("share").value * grid));
  $("share-said").textContent = ` ${rows} of ${grid}`;
  document.querySelector(".veil").style.top = `${(100 * rows) / grid}%`;
}

$("share").addEventListener("input", showShare);
$("complete-clear").addEventListener("click", () => setCompleting(null, null));
$("complete-file").addEventListener("change", async ({ target }) => {
  if (!target.files.length) return;
  try {
    const { url, base64 } = await readFile(target.files[0]);
    setCompleting(url, base64);
  } catch (error) {
    complain("draw-status")(error);
  }
});

// ---- where a picture comes from

function showDetail(src, title, actions) {
  $("detail-image").src = src || "";
  $("detail-image").hidden = !src;
  $("detail-image").alt = title;
  $("detail-image").classList.add("pixel");
  $("detail-image").onload = ({ target }) => target.classList.toggle("pixel", target.naturalWidth <= PIXEL_ART);
  $("detail-title").textContent = title;
  $("detail-actions").replaceChildren(...actions);
  $("facts").replaceChildren();
  $("nearest").hidden = true;
  if (!$("detail").open) $("detail").showModal();
}

function showFacts(facts) {
  $("facts").replaceChildren(...facts.flatMap(([fact, value]) => {
    const isPage = /^https?:\/\//.test(value);
    const said = isPage ? make("a", { href: value, textContent: value, rel: "noopener noreferrer", target: "_blank" }) : value;
    return [make("dt", { textContent: fact }), make("dd", {}, said)];
  }));
}

const action = (text, run) => make("button", { type: "button", textContent: text, onclick: () => { $("detail").close(); run(); } });

function pictureActions(src, name) {
  const actions = [make("a", { href: src, download: `${name.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 60) || "picture"}.png`, textContent: "Save" })];
  if (about.model) {
    actions.push(
      action("Complete its lower rows", () => { open("draw"); setCompleting(src, base64Of(src)); }),
      action("See its tokens", () => { open("tokens"); showTokens(base64Of(src)); }),
    );
  }
  return actions;
}

async function showLineage(body) {
  say("detail-status", "Looking it up …");
  try {
    const { facts, nearest } = await ask("lineage", body);
    showFacts(facts);
    $("nearest").hidden = !nearest.length;
    $("nearest-list").replaceChildren(...nearest.map((row) => pairTile(row)));
    say("detail-status", "");
  } catch (error) {
    complain("detail-status")(error);
  }
}

function showDrawn(picture, body) {
  showDetail(picture.src, body.prompt, pictureActions(picture.src, body.prompt));
  showLineage({ id: picture.id });
}

function showPair(row) {
  showDetail(row.src, row.caption, row.src ? pictureActions(row.src, row.caption) : []);
  say("detail-status", "");
  const names = { caption: "caption", split: "split", source: "source", page_url: "page", image_url: "picture", pair_id: "pair", part_path: "file" };
  showFacts(Object.entries(names).filter(([name]) => row[name]).map(([name, said]) => [said, String(row[name])]));
}

// ---- pairs

function pairTile(row, places, grid) {
  const picture = make("button", { className: "picture", type: "button", onclick: () => showPair(row) });
  if (row.src) {
    const image = make("img", { src: row.src, alt: row.caption, loading: "lazy" });
    image.onload = () => image.classList.toggle("pixel", image.naturalWidth <= PIXEL_ART);
    picture.append(image);
  } else {
    picture.append(make("span", { className: "gone", textContent: "the picture is not there any more" }));
  }
  for (const place of places || []) {
    const mark = make("span", { className: "mark" });
    Object.assign(mark.style, { width: `${100 / grid}%`, height: `${100 / grid}%`, left: `${(100 * (place % grid)) / grid}%`, top: `${(100 * Math.floor(place / grid)) / grid}%` });
    picture.append(mark);
  }
  const figures = [
    row.clip_similarity != null && `CLIP ${row.clip_similarity.toFixed(3)}`,
    row.share_equal != null && `${Math.round(100 * row.share_equal)}% of tokens`,
    row.occurrences != null && `${row.occurrences} times`,
    row.split === "validation" && "validation",
  ].filter(Boolean);
  return make("li", {}, picture, row.caption, make("small", { textContent: figures.join(", ") }));
}

function showPairs(rows) {
  $("pairs-list").replaceChildren(...rows.map((row) => pairTile(row)));
  say("pairs-status", rows.length ? `${rows.length} pairs` : "no pair has them; try fewer words, or ask by CLIP");
}

async function findByWords(text) {
  say("pairs-status", "Looking …");
  await ask("pairs-by-words", { text }).then(({ pairs }) => showPairs(pairs)).catch(complain("pairs-status"));
}

async function findByModel(path, body) {
  say("pairs-status", "Looking …");
  try {
    for await (const event of stream(path, body)) {
      if (event.event === "place") say("pairs-status", inLine(event));
      if (event.event === "pairs") return event.pairs;
    }
  } catch (error) {
    complain("pairs-status")(error);
  }
  return null;
}

$("pairs-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("pairs-text").value;
  if (event.submitter?.value !== "clip") return findByWords(text);
  const rows = await findByModel("pairs-by-clip", { text });
  if (rows) showPairs(rows);
});

$("pairs-file").addEventListener("change", async ({ target }) => {
  if (!target.files.length) return;
  try {
    const { base64 } = await readFile(target.files[0]);
    const byTokens = await findByModel("pairs-by-tokens", { image: base64 });
    const byClip = byTokens && (await findByModel("pairs-by-clip", { image: base64 }));
    if (!byClip) return;
    const known = new Set(byTokens.map((row) => row.pair_id));
    showPairs([...byTokens.slice(0, 12), ...byClip.filter((row) => !known.has(row.pair_id)).slice(0, 12)]);
  } catch (error) {
    complain("pairs-status")(error);
  }
});

// ---- tokens

async function showTokens(base64) {
  $("token-uses").hidden = true;
  say("tokens-status", "Reading the picture …");
  try {
    for await (const event of stream("reconstruct", { image: base64 })) {
      if (event.event === "place") say("tokens-status", inLine(event));
      if (event.event === "tokens") fillGrid(event);
    }
  } catch (error) {
    $("tokens-result").hidden = true;
    complain("tokens-status")(error);
  }
}

function fillGrid({ original, rebuilt, tokens, grid, psnr }) {
  for (const [id, src] of [["tokens-original", original], ["tokens-rebuilt", rebuilt]]) {
    $(id).src = src;
    $(id).classList.toggle("pixel", about.model.image_size <= PIXEL_ART);
  }
  $("grid").style.gridTemplateColumns = `repeat(${grid}, 1fr)`;
  $("grid").replaceChildren(...tokens.map((token, place) => {
    const button = make("button", { type: "button", textContent: token, tabIndex: place ? -1 : 0, onclick: () => showUses(token) });
    button.setAttribute("aria-label", `row ${Math.floor(place / grid) + 1}, column ${(place % grid) + 1}: token ${token}`);
    return button;
  }));
  $("tokens-said").textContent = `what its ${tokens.length} tokens keep: ${new Set(tokens).size} different ones, PSNR ${psnr.toFixed(1)} dB`;
  $("tokens-result").hidden = false;
  say("tokens-status", about.catalog ? "Choose a token to see which pictures of the training pairs use it." : "");
}

$("grid").addEventListener("keydown", (event) => {
  const cells = [...$("grid").children], grid = about.model.grid;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid, ArrowUp: -grid }[event.key];
  const next = step && cells[cells.indexOf(document.activeElement) + step];
  if (!next) return;
  event.preventDefault();
  next.tabIndex = 0;
  document.activeElement.tabIndex = -1;
  next.focus();
});

async function showUses(token) {
  for (const button of $("grid").children) {
    const isSame = button.textContent === String(token);
    button.classList.toggle("same", isSame);
    button.setAttribute("aria-pressed", isSame);
  }
  if (!about.catalog) return;
  say("tokens-status", "Looking …");
  try {
    const { pairs, grid } = await ask("pairs-by-token", { token });
    $("token-title").textContent = pairs.length ? `Training pairs that use token ${token}, most often first` : `No training pair uses token ${token}`;
    $("token-pairs").replaceChildren(...pairs.map((row) => pairTile(row, row.places, grid)));
    $("token-uses").hidden = false;
    say("tokens-status", "");
  } catch (error) {
    complain("tokens-status")(error);
  }
}

async function takeFile(file) {
  try {
    await showTokens((await readFile(file)).base64);
  } catch (error) {
    complain("tokens-status")(error);
  }
}

$("tokens-file").addEventListener("change", ({ target }) => target.files.length && takeFile(target.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("tokens-drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("tokens-drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) takeFile(event.dataTransfer.files[0]);
  });
}

// ---- pictures made before

async function showRun() {
  if (!$("run").value) {
    say("kept-status", "none yet; `dalle generate` keeps the pictures that it makes");
    return;
  }
  say("kept-status", "Looking …");
  try {
    const { pictures } = await ask("gallery", { run_id: $("run").value });
    $("kept-list").replaceChildren(...pictures.map((row) => keptTile(row)));
    say("kept-status", `${pictures.length} pictures`);
  } catch (error) {
    complain("kept-status")(error);
  }
}

function keptTile(row) {
  const tile = pairTile({ ...row, caption: row.prompt });
  tile.querySelector("button").onclick = () => {
    showDetail(row.src, row.prompt, row.src ? pictureActions(row.src, row.prompt) : []);
    showLineage({ generation_id: row.generation_id });
  };
  const verdict = row.all_right == null ? "" : row.all_right ? "✓ right, " : "✗ not all right, ";
  tile.querySelector("small").textContent = `${verdict}CLIP ${row.clip_score.toFixed(3)}`;
  return tile;
}

$("run").addEventListener("change", showRun);

// ---- named queries

function showParameters() {
  const query = about.queries.find(({ name }) => name === $("query").value);
  $("purpose").textContent = query.purpose;
  $("params").replaceChildren(...query.parameters.map(({ name, kind, is_optional, default: value }) => {
    const input = make("input", { name, autocomplete: "off", required: !is_optional, placeholder: value ?? (is_optional ? "any" : "") });
    return make("label", {}, name.replaceAll("_", " "), input, make("small", { textContent: kind }));
  }));
}

$("query").addEventListener("change", showParameters);
$("ask-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  say("ask-status", "Asking …");
  const params = Object.fromEntries([...$("params").querySelectorAll("input")].map((input) => [input.name, input.value]));
  try {
    const { columns, rows, num_rows } = await ask("query", { name: $("query").value, params });
    const cell = (value) => {
      const text = value === null ? "" : typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : typeof value === "object" ? JSON.stringify(value) : String(value);
      return make("td", { textContent: text, className: typeof value === "number" ? "number" : "" });
    };
    const head = make("thead", {}, make("tr", {}, ...columns.map((name, i) => make("th", { textContent: name, scope: "col", className: typeof rows[0]?.[i] === "number" ? "number" : "" }))));
    const body = make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell))));
    $("answer").replaceChildren(make("table", {}, head, body));
    $("answer").hidden = !rows.length;
    say("ask-status", num_rows > rows.length ? `the first ${rows.length} of ${num_rows.toLocaleString("en")} rows; dalle query ${$("query").value} --format csv writes them all` : `${num_rows} rows`);
  } catch (error) {
    $("answer").hidden = true;
    complain("ask-status")(error);
  }
});

// ---- beginning

async function begin() {
  const response = await fetch("/api/about");
  if (!response.ok) throw new Error(await response.text());
  about = await response.json();
  $("title").textContent = about.title;
  document.title = `${about.title}: open-dalle playground`;
  const { model, catalog } = about;
  const hide = (name) => { $(`tab-${name}`).parentElement.hidden = true; };
  if (model) {
    const form = $("draw-form").elements;
    for (const name of ["seed", "temperature", "top_p", "top_k", "guidance", "image_prompt_share"]) form[name].value = model[name];
    form.num_images.max = model.max_images;
    showShare();
  } else {
    ["draw", "tokens"].forEach(hide);
    $("notice").textContent = `Nothing can be drawn yet: ${about.why_no_model}`;
    $("notice").hidden = false;
  }
  if (catalog) {
    $("run").append(...catalog.runs.map((run) => make("option", { value: run, textContent: run })));
    $("query").append(...about.queries.map(({ name }) => make("option", { value: name, textContent: name.replaceAll("_", " ") })));
    showParameters();
    $("examples").append(...catalog.examples.map((text) => make("button", { type: "button", textContent: text, onclick: () => { $("prompt").value = text; draw(); } })));
    $("examples").hidden = !catalog.examples.length || !model;
  } else {
    ["pairs", "kept", "ask"].forEach(hide);
    if (about.why_no_catalog) { $("notice").textContent = about.why_no_catalog; $("notice").hidden = false; }
  }
  const wanted = location.hash.slice(1);
  const tabs = [...document.querySelectorAll('[role="tab"]')].filter((tab) => !tab.parentElement.hidden).map((tab) => tab.getAttribute("aria-controls"));
  open(tabs.includes(wanted) ? wanted : tabs[0]);
  document.body.dataset.ready = "";
}

begin().catch((error) => {
  $("notice").textContent = error.message;
  $("notice").hidden = false;
});
