// The page: asks /api/predict and /api/score, as far as there are models, and shows the answers. Texts reach the page as text nodes only, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const NAMES = { text: "Text", image: "Picture", video: "Clip" };
const STREAMS = { frames: "its pictures", pixels: "what it shows", sound: "its sound", faces: "its faces", speech: "its speech", transcript: "its spoken words", words: "its written words" };
const STRONG = 0.55; // how opaque the strongest word or patch is marked

const OFTEN = 0.9; // how often a score's interval holds the true one, unless another rate is chosen
let health = { labels: [], modalities: [], scores: null, limits: { bytes: Infinity } };
let asked = 0;

function make(tag, attributes = {}, ...children) {
  const known = ["svg", "rect", "line", "circle", "path", "title"].includes(tag);
  const node = known ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

const percent = (share) => {
  const value = 100 * share;
  return `${value > 0 && value < 1 ? "<1" : Math.round(value)} %`;
};
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1);

// --- what is given ---------------------------------------------------------------------------------------------------

function show(drop) {
  const input = drop.querySelector("input"), preview = drop.querySelector(".preview:not(#watching)"), file = input.files[0];
  for (const old of preview.querySelectorAll("[src]")) URL.revokeObjectURL(old.src);
  preview.replaceChildren();
  if (input.id === "video" && Recorder.possible) $("recorded").textContent = "";
  drop.classList.toggle("full", Boolean(file));
  preview.hidden = drop.querySelector(".remove").hidden = !file;
  if (!file) return;
  const source = URL.createObjectURL(file);
  if (file.type.startsWith("video/")) {
    preview.append(measured(make("video", { src: source, controls: "", playsinline: "", "aria-label": file.name })));
    waveform(file).then((drawn) => { if (drawn && input.files[0] === file) preview.append(drawn); });
  } else {
    const picture = make("img", { src: source, alt: file.name });
    picture.addEventListener("error", () => preview.replaceChildren(file.name));
    preview.append(picture);
  }
}

function give(name, file) {
  const box = new DataTransfer();
  if (file) box.items.add(file);
  $(name).files = box.files;
  show($(name).closest(".drop"));
}

for (const drop of document.querySelectorAll(".drop")) {
  const name = drop.dataset.for;
  drop.querySelector("input").addEventListener("change", () => show(drop));
  drop.querySelector(".remove").addEventListener("click", () => { give(name, null); $(name).focus(); });
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  drop.addEventListener("dragleave", (event) => {
    if (!drop.contains(event.relatedTarget)) drop.classList.remove("over");
  });
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) give(name, event.dataTransfer.files[0]);
  });
}
// Records a clip in place of the one that is there; Escape throws it away. A recording that is under way ends before the clip is sent.
let recorder = null, recorded = Promise.resolve();

async function record() {
  problem("");
  try {
    const file = await recorder.record();
    if (file) give("video", file);
    $("recorded").textContent = file ? "Recorded; not sent before you press Predict." : "Discarded.";
  } catch (error) {
    problem(error.message);
  }
  $("record").focus();
}

$("record").addEventListener("click", () => {
  if (recorder.active) recorder.stop(true);
  else if (!recorder.asking) recorded = record();
});
$("discard").addEventListener("click", () => recorder.stop(false));

function mayRecord() {
  recorder = new Recorder($("watching"), health.limits, () => {
    const active = Boolean(recorder.active);
    $("record").textContent = active ? "Stop" : "Record";
    $("discard").hidden = !active;
    if (active) $("recorded").textContent = `Recording, for ${Math.round(recorder.seconds)} seconds at most.`;
  });
  document.querySelector(".recording").hidden = document.querySelector(".computed").hidden = false;
  if (!Recorder.possible) {
    $("record").hidden = true;
    $("recorded").textContent = isSecureContext ? "This browser cannot record." : "To record here, open this page over https.";
  }
}

// A file that misses its field must not replace the page.
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());

// --- asking ----------------------------------------------------------------------------------------------------------

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

async function post(path, what) {
  const reply = await fetch(path, { method: "POST", ...what });
  return reply.json();
}

async function ask() {
  if (recorder?.active) { recorder.stop(true); await recorded; }
  const form = new FormData();
  if ($("text").value.trim()) form.set("text", $("text").value);
  let size = 0;
  for (const name of ["image", "video"]) {
    const file = $(name).files[0];
    if (file) { form.set(name, file); size += file.size; }
  }
  if ([...form.keys()].length === 0) return problem(health.labels.length ? "Give a text, a picture or a clip." : "Give a text.");
  if (size > health.limits.bytes) return problem(`Picture and clip together may have ${Math.floor(health.limits.bytes / 2 ** 20)} MB.`);
  const text = form.get("text"), often = $("coverage").value;
  if (often) form.set("coverage", often);
  form.set("explain", $("explain").checked);
  form.set("looked_at", "true");

  const number = ++asked;
  problem("");
  $("go").setAttribute("aria-disabled", "true");
  $("go").textContent = "Predicting …";
  try {
    const wanted = [];
    if (health.labels.length) wanted.push(post("api/predict", { body: form }));
    if (health.scores?.scores_words && text) wanted.push(post("api/score", {
      body: JSON.stringify({ text, coverage: Number(often || OFTEN) }), headers: { "content-type": "application/json" },
    }));
    const answers = await Promise.all(wanted);
    if (number !== asked) return;
    const wrong = answers.find((answer) => answer.error);
    if (wrong) problem(wrong.error);
    else tell(answers.find((answer) => "label" in answer), answers.find((answer) => "score" in answer), text, Number(often || OFTEN));
  } catch {
    if (number === asked) problem("The server cannot be reached.");
  } finally {
    if (number === asked) { $("go").removeAttribute("aria-disabled"); $("go").textContent = "Predict"; }
  }
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
$("ask").addEventListener("reset", () => setTimeout(() => {
  asked++;
  recorder?.stop(false);
  document.querySelectorAll(".drop").forEach(show);
  problem("");
  $("answer").replaceChildren();
  $("go").removeAttribute("aria-disabled");
  $("go").textContent = "Predict";
  $("text").focus();
}));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") recorder?.stop(false);
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); ask(); }
});

// --- the answer ------------------------------------------------------------------------------------------------------

function bar(label, value) {
  const drawn = make("meter", { min: 0, max: 1, value, "aria-label": `${label}: ${percent(value)}` });
  drawn.style.setProperty("--filled", `${100 * value}%`);  // browsers draw their own bars at places of their own
  return drawn;
}

function bars(probabilities, caption) {
  const ordered = Object.entries(probabilities).sort((one, other) => other[1] - one[1]);
  const rows = ordered.map(([label, value], at) => make("tr", at ? {} : { class: "top" },
    make("th", { scope: "row" }, label),
    make("td", {}, bar(label, value)),
    make("td", { class: "n" }, percent(value))));
  return make("table", { class: "bars" }, make("caption", { class: "unseen" }, caption), make("tbody", {}, ...rows));
}

const panel = (title, ...content) => make("div", { class: "panel" }, make("h3", {}, title), ...content);

function tell(answer, score, text, often) {
  $("answer").replaceChildren(...(answer ? emotions(answer, text) : []), ...(score ? [scored(score, often, !answer)] : []));
  $("answer").focus({ preventScroll: true });
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("answer").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}

// A score on the scale of those that the model learned from; what lies beyond is drawn at its end.
function scored(answer, often, alone) {
  const [low, high] = health.scores.scale, known = answer.low !== null;
  const place = (value) => 100 * Math.min(Math.max((value - low) / (high - low || 1), 0), 1);
  const fixed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  const drawn = make("svg", { viewBox: "-3 0 106 12", class: "scale", role: "img", "aria-label": `Score ${fixed(answer.score)} on a scale from ${fixed(low)} to ${fixed(high)}` },
    make("line", { x1: 0, x2: 100, y1: 6, y2: 6, class: "axis" }),
    make("line", { x1: place(0), x2: place(0), y1: 2, y2: 10, class: "axis" }));
  if (known) drawn.append(make("rect", { x: place(answer.low), y: 4, height: 4, rx: 2, width: Math.max(place(answer.high) - place(answer.low), 1) }));
  drawn.append(make("circle", { cx: place(answer.score), cy: 6, r: 2.5 }));
  const range = known ? `The true score lies in [${fixed(answer.low)}, ${fixed(answer.high)}] about ${Math.round(100 * often)} times in 100.`
    : "There were too few rows to give an interval at this rate.";
  return make("div", { class: "panel score" }, make(alone ? "h2" : "h3", {}, `Sentiment ${fixed(answer.score)}`), drawn,
    make("p", { class: "ends muted" }, make("span", {}, fixed(low)), make("span", {}, fixed(high))),
    make("p", { class: "says muted" }, `By the words alone. ${range}`));
}

function emotions(answer, text) {
  const parts = Object.entries(answer.modalities);
  const present = parts.filter(([, part]) => part.state === "present");
  const sure = percent(answer.probabilities[answer.label]);
  const content = [
    make("h2", {}, answer.label),
    make("p", { class: "verdict muted" }, `with a probability of ${sure}`),
    panel("Together", bars(answer.probabilities, "Probabilities, all taken together")),
  ];
  if (answer.set) {
    content.push(panel("Cannot be ruled out", make("p", { class: "says" }, answer.set.length
      ? answer.set.join(", ")
      : "None: at this rate the post is like none that the model was checked on.")));
  }
  const each = present.map(([name, part]) => panel(NAMES[name] + " alone",
    make("p", { class: "says muted" }, "pulled ", ...pull(part.change, answer.label), `, ${percent(part.share)} of all pull`),
    ...streams(part.streams, answer.label),
    bars(part.alone, `Probabilities by the ${NAMES[name].toLowerCase()} alone`)));
  content.push(make("div", { class: "each" }, ...each));
  const explained = answer.explanation;
  if (explained?.words && text) content.push(panel("Word by word", words(text, explained), key(answer.label)));
  const seen = answer.looked_at;
  if (seen?.image) content.push(panel("The picture that was looked at", ...picture(seen.image, explained, answer.label)));
  if (seen?.frames?.length) content.push(panel("The frames that were looked at", frames(seen.frames, explained)));
  if (seen?.faces?.length) content.push(panel("The faces that were measured", ...faces(seen.faces)));
  const unread = parts.filter(([, part]) => part.reason);
  if (unread.length) {
    content.push(make("p", { class: "warnings unread" },
      unread.map(([name, part]) => `${NAMES[name]} not used: ${part.reason}.`).join(" ")));
  }
  return content;
}

// How far, and which way; what is rounded away has no direction.
const pull = (change, label) => (Math.abs(change) < 0.05
  ? ["neither way"]
  : [make("strong", {}, signed(change)), ` ${change < 0 ? "away from" : "towards"} ${label}`]);

// What each stream of a clip or picture did, or why it is not there; nothing where there is one stream or none.
function streams(parts, label) {
  const listed = Object.entries(parts ?? {});
  if (listed.length < 2) return [];
  const items = listed.map(([name, { present, reason, change }]) => make("li", {}, `${STREAMS[name] ?? name}: `,
    ...(present ? pull(change, label) : [reason ?? "not there"])));
  return [make("ul", { class: "streams muted" }, ...items)];
}

// What speaks for the label is blue, what speaks against it is orange: told apart by any eye.
const tint = (change, most) =>
  `rgb(${change > 0 ? "42 132 199" : "226 138 30"} / ${((STRONG * Math.abs(change)) / (most || 1)).toFixed(3)})`;

function words(text, explained) {
  const most = Math.max(...explained.words.map((word) => Math.abs(word.change)));
  const said = make("p", { class: "said" });
  let at = 0;
  for (const { word, change } of explained.words) {
    const start = text.indexOf(word, at); // by its letters: line breaks are counted otherwise on their way to the server
    if (start < 0) continue;
    const marked = make("mark", { title: signed(change) }, word);
    marked.style.backgroundColor = tint(change, most);
    said.append(text.slice(at, start), marked);
    at = start + word.length;
  }
  said.append(text.slice(at));
  return said;
}

function key(label) {
  const sample = (change, what) => {
    const mark = make("mark");
    mark.style.backgroundColor = tint(change, 1);
    return make("span", {}, mark, ` ${what} ${label}`);
  };
  return make("p", { class: "key said" }, sample(1, "spoke for"), sample(-1, "spoke against"));
}

function picture(source, explained, label) {
  const image = make("img", { src: source, class: "picture", alt: "The picture that you gave" });
  const rows = explained?.patches;
  if (!rows) return [image];
  const most = Math.max(...rows.flat().map(Math.abs));
  const grid = make("svg", { viewBox: `0 0 ${rows[0].length} ${rows.length}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  rows.forEach((row, y) => row.forEach((change, x) =>
    grid.append(make("rect", { x, y, width: 1, height: 1, fill: tint(change, most) }, make("title", {}, signed(change))))));
  return [make("div", { class: "patched" }, image, grid), key(label)];
}

function frames(sources, explained) {
  const items = sources.map((source, at) => {
    const change = explained?.frames?.[at];
    const told = change === undefined || change === null ? null : make("figcaption", {}, signed(change));
    return make("li", {}, make("figure", {}, make("img", { src: source, alt: `Frame ${at + 1} of ${sources.length}` }), told));
  });
  return make("ul", { class: "looked" }, ...items);
}

// The picture and the frames in which faces were sought, with a box around the one that was measured.
function faces(seen) {
  const items = seen.map(({ frame, box }, at) => {
    const name = `Frame ${at + 1} of ${seen.length}: ${box ? "a face" : "no face"}`;
    const image = make("img", { src: frame, alt: name });
    if (!box) return make("li", {}, make("figure", {}, image, make("figcaption", {}, "no face")));
    const [x, y, width, height] = box;
    const drawn = make("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" },
      make("rect", { x, y, width, height, class: "face" }));
    return make("li", {}, make("figure", {}, make("div", { class: "patched" }, image, drawn)));
  });
  return [make("ul", { class: "looked" }, ...items), make("p", { class: "says muted" }, "Of several faces the largest counts. Whose it is nobody asks.")];
}

// --- examples --------------------------------------------------------------------------------------------------------

async function fetched(path, name) {
  const reply = await fetch(path.slice(1));
  const content = await reply.blob();
  return new File([content], name, { type: content.type });
}

async function start() {
  health = await (await fetch("health")).json();
  const known = [];
  if (health.labels.length) known.push(`Knows ${health.labels.join(", ")}, from ${health.modalities.map((name) => NAMES[name].toLowerCase()).join(", ")}.`);
  if (health.scores?.scores_words) known.push(`Scores words from ${health.scores.scale.join(" to ")}.`);
  else if (health.scores) known.push("Scores features at /api/score, which this page cannot make.");
  $("about").textContent = [...known, "A model's guess, not a diagnosis of anyone."].join(" ");
  if (!health.labels.length) $("explain").closest("label").hidden = true;
  for (const name of Object.keys(NAMES)) {
    if (name !== "text" && !health.modalities.includes(name)) document.querySelector(`.drop[data-for=${name}]`).hidden = true;
  }
  if (health.modalities.includes("video")) mayRecord();
  for (const example of await (await fetch("api/examples")).json()) {
    const small = example.image || example.video;
    const button = make("button", { type: "button" }, small ? make("img", { src: small.slice(1), alt: "" }) : null, example.name);
    button.addEventListener("click", async () => {
      $("text").value = example.text;
      give("image", example.image && await fetched(example.image, "example.jpg"));
      give("video", example.video && await fetched(example.video, "example.gif"));
      ask();
    });
    $("examples").append(make("li", {}, button));
  }
}

start().catch(() => problem("The server cannot be reached."));
