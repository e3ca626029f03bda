"use strict";
// Texts reach the page by textContent alone, so that no name can be markup.
const data = JSON.parse(document.getElementById("data").textContent);
const entries = data.entries, at = (id) => document.getElementById(id);
const STATES = { "1": "present", "0": "absent", "-1": "unknown", "-2": "uncertain" };
const STRIPS = {
  typical: "Typical", confusing: "Confusing: look like it, and are labelled absent",
  doubtful: "Doubtful: their own label may be wrong", nearest: "Most like this image",
};
const KEYS = {
  r: "right", w: "wrong", u: "unsure", p: "present", a: "absent", n: "next", arrowright: "next", b: "back",
  arrowleft: "back", z: "undo", h: "heat", s: "save",
};
const KEPT = `mlcv-audit:${data.key}`, NAME = "mlcv-audit:who";
let log = [], here = 0, filter = "", isHot = false, isKept = true, unsaved = 0;

// What is decided: a log of [entry, decision, label, who, when], of which the last of an entry counts.
function decisions() {
  return new Map(log.map((one) => [one[0], one]));
}

function recall(key) {
  try { return localStorage.getItem(key); } catch { isKept = false; return null; }
}

function remember(key, text) {
  try { localStorage.setItem(key, text); } catch { isKept = false; }
}

function isDecision(one) {
  return Array.isArray(one) && one.length === 5 && Number.isInteger(one[0]) && one[0] in entries
    && ["right", "wrong", "unsure"].includes(one[1]) && Object.hasOwn(data.cells, one[2])
    && typeof one[3] === "string" && typeof one[4] === "string";
}

function load() {
  let kept = null;
  try { kept = JSON.parse(recall(KEPT)); } catch { kept = null; }
  log = Array.isArray(kept) ? kept.filter(isDecision) : [];
}

function isKnown(entry) {
  return entry.given >= 0;
}

function listed() {
  return [...entries.keys()].filter((place) => filter === "" || entries[place].class === filter);
}

function told(text) {
  at("told").textContent = text;
}

function decide(what) {
  const entry = entries[here];
  if (!isKnown(entry) && (what === "right" || what === "wrong")) {
    told("Nobody gave this label: say whether it is present (P) or absent (A).");
    return;
  }
  const labels = { right: entry.given, wrong: 1 - entry.given, unsure: entry.given, present: 1, absent: 0 };
  const label = labels[what], decision = what === "unsure" ? what : label === entry.given ? "right" : "wrong";
  log.push([here, decision, label, at("who").value.trim(), new Date().toISOString()]);
  changed();
  const done = decisions(), places = listed();
  const later = [...places.filter((place) => place > here), ...places.filter((place) => place < here)];
  const next = later.find((place) => !done.has(place));
  if (next !== undefined) {
    go(next);
    told("");
  } else {
    show();
    const rest = entries.length - done.size;
    told(rest ? `All of this class are decided; ${rest} of others are not.` : "All are decided: save corrections.csv.");
  }
}

function changed() {
  unsaved += 1;
  remember(KEPT, JSON.stringify(log));
}

function undo() {
  if (!log.length) {
    told("There is nothing to undo.");
    return;
  }
  const [place] = log.pop();
  changed();
  if (filter !== "" && entries[place].class !== filter) filter = "";
  go(place);
  told(`Undone: ${entries[place].class}.`);
}

function move(step) {
  const places = listed(), next = places[places.indexOf(here) + step];
  if (next === undefined) told(step > 0 ? "This is the last one." : "This is the first one.");
  else { go(next); told(""); }
}

function go(place) {
  here = place;
  isHot = false;
  show();
  if (at("card").getBoundingClientRect().top < 0) at("card").scrollIntoView();
}

const DOES = {
  right: () => decide("right"), wrong: () => decide("wrong"), unsure: () => decide("unsure"),
  present: () => decide("present"), absent: () => decide("absent"), next: () => move(1), back: () => move(-1), undo,
  heat: () => { if (entries[here].heat !== null) { isHot = !isHot; show(); } },
  save,
};

function source(picture) {
  return `data:image/jpeg;base64,${data.pictures[picture]}`;
}

function make(tag, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
}

function short(name) {
  return name.split("/").slice(-2).join("/");
}

function enlarge(src, alt) {
  at("zoomed").src = src;
  at("zoomed").alt = alt;
  at("zoom").showModal();
}

function strip(kind, examples) {
  const node = make("div"), row = make("div", undefined, "strip");
  for (const one of examples) {
    const figure = make("figure"), button = make("button"), image = make("img");
    const labels = one.labels.length ? one.labels.join(", ") : "no label";
    image.src = source(one.picture);
    image.alt = `${one.image}: ${labels}`;
    button.title = one.image;
    button.append(image);
    button.addEventListener("click", () => enlarge(image.src, image.alt));
    figure.append(button, make("figcaption", labels));
    row.append(figure);
  }
  node.append(make("h3", STRIPS[kind]), row);
  return node;
}

function show() {
  progress();
  at("nothing").hidden = entries.length > 0;
  at("card").hidden = entries.length === 0;
  if (!entries.length) return;
  const entry = entries[here], places = listed(), done = decisions().get(here), known = isKnown(entry);
  const hot = isHot && entry.heat !== null, picture = hot ? entry.heat : entry.picture;
  at("picture").hidden = picture === null;
  at("no-picture").hidden = picture !== null;
  if (picture !== null) at("image").src = source(picture);
  at("image").alt = hot ? `heat map of ${entry.class} on ${entry.image}` : entry.image;
  at("heat").hidden = entry.heat === null;
  at("heat").setAttribute("aria-pressed", String(hot));
  at("name").textContent = entry.split ? `${entry.image} (${entry.split})` : entry.image;
  at("place").textContent = `${places.indexOf(here) + 1} of ${places.length}${filter === "" ? "" : " of this class"}`;
  at("class").textContent = entry.class;
  at("given").textContent = STATES[entry.given];
  at("suggested").textContent = `${STATES[entry.suggested]}; ${entry.words.replace(" %", "\u00a0%")}`;
  at("reason").textContent = entry.reason || "-";
  at("labels").replaceChildren(...(entry.labels.length ? entry.labels.map((name) => make("span", name, "chip")) : ["none"]));
  at("of-known").hidden = !known;
  at("of-unknown").hidden = known;
  at("decided").replaceChildren();
  if (done) {
    const label = STATES[done[2]], said = done[1] !== "wrong" ? done[1] : known ? `wrong, it is ${label}` : label;
    at("decided").append(make("span", `Decided: ${said}`, "badge"), done[3] ? ` by ${done[3]}` : "");
  }
  for (const button of document.querySelectorAll(".deciding button")) {
    const does = button.dataset.does;
    const said = known || !done || done[1] === "unsure" ? done && done[1] : STATES[done[2]];
    button.setAttribute("aria-pressed", String(said === does));
  }
  const examples = { ...(data.examples[entry.class] || {}), nearest: entry.nearest };
  const strips = Object.keys(STRIPS).map((kind) => [kind, (examples[kind] || []).filter((one) => one.image !== entry.image)]);
  const full = strips.filter(([, found]) => found.length);
  at("strips").replaceChildren(...full.map(([kind, found]) => strip(kind, found)));
  at("beside").hidden = full.length === 0;
}

// A label that nobody gave is not wrong: it is added.
const KINDS = ["wrong", "right", "unsure", ...(entries.every(isKnown) ? [] : ["added"])];

function counts(places, done) {
  const found = { of: places.length, decided: 0, wrong: 0, right: 0, unsure: 0, added: 0 };
  for (const place of places.filter((one) => done.has(one))) {
    const decision = done.get(place)[1];
    found.decided += 1;
    found[decision === "wrong" && !isKnown(entries[place]) ? "added" : decision] += 1;
  }
  return found;
}

function row(tag, cells) {
  const node = make("tr");
  node.append(...cells.map((cell) => make(tag, cell)));
  return node;
}

function progress() {
  const done = decisions(), all = counts([...entries.keys()], done);
  at("progress").max = Math.max(all.of, 1);
  at("progress").value = all.decided;
  at("count").textContent = `${all.decided} of ${all.of} decided: ${KINDS.map((kind) => `${all[kind]} ${kind}`).join(", ")}`;
  at("storage").hidden = isKept;
  const classes = [...new Set(entries.map((entry) => entry.class))];
  const found = classes.map((name) => [name, counts([...entries.keys()].filter((place) => entries[place].class === name), done)]);
  at("by-class").hidden = classes.length === 0;
  const head = ["decided", "of", ...KINDS];
  at("by-class").querySelector("thead").replaceChildren(row("th", ["class", ...head]));
  at("by-class").querySelector("tbody").replaceChildren(...found.map(([name, one]) => row("td", [name, ...head.map((kind) => one[kind])])));
  const options = [["", `all (${all.decided} of ${all.of})`], ...found.map(([name, one]) => [name, `${name} (${one.decided} of ${one.of})`])];
  at("filter").replaceChildren(...options.map(([value, text]) => {
    const option = make("option", text);
    option.value = value;
    return option;
  }));
  at("filter").value = filter;
  health(done);
}

// What was found among the decided against the sum of their probabilities, and how far chance may take that.
function health(done) {
  const judged = [...done.values()].filter((one) => one[1] !== "unsure" && isKnown(entries[one[0]]));
  at("health").hidden = judged.length < data.report_after || judged.length === 0;
  if (at("health").hidden) return;
  const chances = judged.map((one) => entries[one[0]].probability), sum = (all) => all.reduce((a, b) => a + b, 0);
  const wrong = judged.filter((one) => one[1] === "wrong").length, expected = sum(chances);
  const spread = 2 * Math.sqrt(sum(chances.map((p) => p * (1 - p))));
  const percent = (count) => `${Math.round(100 * count / judged.length)}\u00a0%`;
  const verdict = wrong > expected + spread ? "more than expected" : wrong < expected - spread
    ? "fewer than expected: the page is too sure" : "as expected";
  at("health").textContent = `Of ${judged.length} given labels decided, ${wrong} were wrong (${percent(wrong)}); expected were `
    + `${expected.toFixed(1)} ± ${spread.toFixed(1)} (${percent(expected)}): ${verdict}. Where mistakes depend on what `
    + "an image looks like, estimates of how many labels are wrong in all are a lower bound.";
}

// As files.shielded has it: an apostrophe before what a spreadsheet would run as a formula.
function shielded(text) {
  return /^[=+\-@\t\r]/.test(text) || /^'[=+\-@\t\r']/.test(text) ? `'${text}` : text;
}

function cell(text) {
  return /[",;|\r\n\t]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// What is decided here, after what was decided before. Of an entry that was decided then, too, the file says what its
// label was at first, as it still is in the data, and what it is to be now.
function corrections() {
  const rows = new Map(data.earlier.map((row) => [JSON.stringify([row.image, row.class, row.split]), row]));
  [...decisions().values()].sort((one, other) => one[0] - other[0]).forEach(([place, decision, code, who, when]) => {
    const entry = entries[place], key = JSON.stringify([entry.image, entry.class, entry.split]), before = rows.get(key);
    const label = data.cells[code], given = before?.given ?? data.cells[entry.given];
    if (before?.decision === "wrong" && decision !== "wrong") return; // it stays as it was put right
    rows.delete(key);
    rows.set(key, {
      image: entry.image, class: entry.class, given, label, split: entry.split, who, when,
      decision: before && decision === "wrong" && label === given ? "right" : decision,
    });
  });
  return [...rows.values()];
}

function table() {
  const texts = new Set(["image", "class", "who"]);
  const rows = corrections().map((row) =>
    data.columns.map((name) => cell(texts.has(name) ? shielded(row[name]) : row[name])).join(","));
  return `\ufeff${[data.columns.join(","), ...rows].join("\r\n")}\r\n`; // by the mark spreadsheets know UTF-8
}

function save() {
  const link = make("a"), address = URL.createObjectURL(new Blob([table()], { type: "text/csv;charset=utf-8" }));
  link.href = address;
  link.download = "corrections.csv";
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  unsaved = 0;
  const before = data.earlier.length ? ` and ${data.earlier.length} of before` : "";
  told(`Saved ${decisions().size} decisions${before}: use them with --data.corrections corrections.csv.`);
}

document.querySelectorAll("[data-does]").forEach((button) => button.addEventListener("click", () => DOES[button.dataset.does]()));
at("heat").addEventListener("click", DOES.heat);
at("save").addEventListener("click", save);
at("picture").addEventListener("click", () => enlarge(at("image").src, at("image").alt));
at("zoom").addEventListener("click", () => at("zoom").close());
at("filter").addEventListener("change", () => {
  filter = at("filter").value;
  const places = listed(), done = decisions();
  go(places.find((place) => !done.has(place)) ?? places[0]);
  told("");
});
at("who").addEventListener("change", () => { remember(NAME, at("who").value.trim()); show(); });
at("ask").addEventListener("close", () => {
  at("who").value = at("asked").value.trim();
  remember(NAME, at("who").value);
});
document.addEventListener("keydown", (event) => {
  const isUndo = (event.ctrlKey || event.metaKey) && event.key === "z";
  if (document.querySelector("dialog[open]") || event.altKey || ((event.ctrlKey || event.metaKey) && !isUndo)) return;
  // The question's field may have the focus for a moment after it is closed.
  if (["who", "filter"].includes(event.target.id) || !entries.length || event.repeat) return;
  const does = KEYS[event.key.toLowerCase()];
  if (does) { event.preventDefault(); DOES[does](); }
});
addEventListener("storage", (event) => { // decided in another tab
  if (event.key !== KEPT) return;
  const own = isKept ? [] : log; // which nothing but this page holds
  load();
  const there = new Set(log.map((one) => JSON.stringify(one)));
  log.push(...own.filter((one) => !there.has(JSON.stringify(one))));
  show();
});
addEventListener("beforeunload", (event) => { if (!isKept && unsaved) event.preventDefault(); });

load();
remember(KEPT, JSON.stringify(log)); // whether this browser keeps anything is known before the first decision
at("who").value = recall(NAME) || "";
here = Math.max([...entries.keys()].findIndex((place) => !decisions().has(place)), 0);
show();
if (entries.length && decisions().size === entries.length) told("All are decided: save corrections.csv.");
if (entries.length && !at("who").value) at("ask").showModal();
