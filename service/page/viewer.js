// The large view of a search result: its tags, which can be accepted or rejected, and the keywords of its owner.

import { askJson, picture, postJson, tagsOf } from "./api.js";
import { $, bar, button, element, note, percent } from "./dom.js";
import { baseName } from "./grid.js";

const MOST = 2048; // the largest side that the service makes, in pixels

let grid = null; // what the grid lends: {photos, more, thumbnail, like, filter, closed}
let place = 0;
let leaving = new AbortController(); // stops what was asked for the photo before
let saving = Promise.resolve(); // decisions are sent one after the other
let made = []; // decisions that can be undone: {photo, tag, before}

/** Open the large view of a photo of the grid. */
export function openViewer(at, lent) {
  grid = lent;
  made = [];
  $("viewer").showModal();
  $("viewer-name").focus();
  show(at);
}

const photo = () => grid.photos()[place].photo;

function show(at) {
  leaving.abort();
  leaving = new AbortController();
  place = at;
  $("viewer-name").textContent = baseName(photo());
  $("viewer-name").title = photo();
  showPlace();
  disable("viewer-undo", !made.length);
  showPicture(leaving.signal);
  showTags(leaving.signal);
  if (place > grid.photos().length - 6) grid.more().then(showPlace);
}

function showPlace() {
  $("viewer-place").textContent = `${place + 1} of ${grid.photos().length}`;
  disable("viewer-back", place === 0);
  disable("viewer-on", place === grid.photos().length - 1);
}

function disable(id, is) {
  if (is && document.activeElement === $(id)) $("viewer-name").focus(); // a disabled button would lose it
  $(id).disabled = is;
}

async function showPicture(signal) {
  const image = $("viewer-photo");
  URL.revokeObjectURL(image.dataset.large ?? "");
  image.alt = photo();
  image.src = grid.thumbnail(place) || "page/icon.svg"; // until the large one is there
  const side = Math.min(MOST, Math.ceil(Math.max(innerWidth, innerHeight) * devicePixelRatio));
  try {
    const large = await picture(photo(), side, { signal });
    if (signal.aborted) return URL.revokeObjectURL(large);
    image.src = image.dataset.large = large;
  } catch (error) {
    if (!signal.aborted) note("viewer-note", error.message, true);
  }
}

// ---- tags

async function showTags(signal) {
  const inTags = $("viewer-tags").contains(document.activeElement);
  $("viewer-tags").replaceChildren();
  $("viewer-own").hidden = true;
  note("viewer-note", "…");
  if (inTags) $("viewer-name").focus();
  try {
    const answer = await askJson(tagsOf(photo()), { signal });
    if (signal.aborted) return;
    const longest = Math.max(0.001, ...answer.tags.map((one) => one.score));
    $("viewer-tags").replaceChildren(
      ...answer.tags.map((one) => row(one.tag, one.score / longest, percent(one.probability))),
    );
    for (const word of [...answer.given, ...answer.accepted, ...answer.rejected]) rowOf(word);
    reach(0);
    mark(answer);
    note("viewer-note", answer.problem || (rows().length ? "" : "No tag is probable enough."), Boolean(answer.problem));
    if (inTags) focusRow(0);
  } catch (error) {
    if (!signal.aborted) note("viewer-note", error.message, true);
  }
}

function row(tag, share, probability) {
  const item = element("li");
  item.dataset.tag = tag;
  const word = button("word", tag, () => filter(tag), `Search for ${tag}`);
  const accept = button("accept quiet", "✓", () => decide(item, "accept"), `Accept ${tag}`);
  const reject = button("reject quiet", "✗", () => decide(item, "reject"), `Reject ${tag}`);
  item.append(word, bar(share), element("span", "share", probability), accept, reject);
  item.addEventListener("focusin", () => reach(rows().indexOf(item)));
  return item;
}

const rows = () => [...$("viewer-tags").children];
const has = (words, word) => words.some((one) => one.toLowerCase() === word.toLowerCase());

/** The row of a word; a new one if the model does not give the word. */
function rowOf(word) {
  const known = rows().find((item) => has([item.dataset.tag], word));
  if (!known) $("viewer-tags").append(row(word, 0, ""));
  return known ?? $("viewer-tags").lastChild;
}

/** Show what a person decided, and what their keywords are. */
function mark(answer) {
  const theirs = answer.keywords.filter((word) => !has(answer.accepted, word));
  for (const item of rows()) {
    item.querySelector(".accept").setAttribute("aria-pressed", has(answer.accepted, item.dataset.tag));
    item.querySelector(".reject").setAttribute("aria-pressed", has(answer.rejected, item.dataset.tag));
    item.classList.toggle("theirs", has(theirs, item.dataset.tag));
    item.classList.toggle("written", has(answer.given, item.dataset.tag));
  }
  $("viewer-own").hidden = !theirs.length;
  $("viewer-keywords").replaceChildren(...theirs.map((word) => {
    const item = element("li");
    item.append(button("word", word, () => filter(word), `Search for ${word}`));
    return item;
  }));
}

/** Which decision a row shows: accept, reject, or forget, which is none. */
function decision(item) {
  const pressed = (name) => item.querySelector(`.${name}`).getAttribute("aria-pressed") === "true";
  return ["accept", "reject"].find(pressed) ?? "forget";
}

/** Accept or reject the tag of a row, or take that back if it is decided so already. */
function decide(item, wanted) {
  const before = decision(item);
  const after = before === wanted ? "forget" : wanted;
  const one = { photo: photo(), tag: item.dataset.tag, before };
  made.push(one);
  return save(photo(), item.dataset.tag, after, () => { made = made.filter((other) => other !== one); });
}

function add() {
  const word = $("viewer-word").value.trim();
  if (!word) return;
  $("viewer-word").value = "";
  const item = rowOf(word);
  if (decision(item) !== "accept") decide(item, "accept");
}

function undo() {
  const last = made.pop();
  if (last) save(last.photo, last.tag, last.before, () => made.push(last));
}

const DONE = { accept: "Accepted", reject: "Rejected", forget: "Undecided again" };

/** Send a decision; call `fail` if the service refuses it. */
function save(of, tag, what, fail) {
  saving = saving.then(async () => {
    try {
      const answer = await postJson(tagsOf(of), { [what]: [tag] });
      if (of === photo()) mark(answer);
      note("viewer-note", `${DONE[what]}: ${tag}${of === photo() ? "" : ` (${baseName(of)})`}.`);
    } catch (error) {
      fail();
      note("viewer-note", error.message, true);
    }
    disable("viewer-undo", !made.length);
  });
  return saving;
}

// ---- keys: one row of the tags is reached by Tab, the others by the arrow keys

function reach(at) {
  rows().forEach((item, index) => {
    for (const one of item.querySelectorAll("button")) one.tabIndex = index === at ? 0 : -1;
  });
}

function focusRow(at, name = "word") {
  rows()[at]?.querySelector(`.${name}`).focus();
}

function step(by) {
  if (grid.photos()[place + by]) show(place + by);
}

function moveInTags(by) {
  const now = rows().findIndex((item) => item.contains(document.activeElement));
  const name = document.activeElement.classList[0];
  if (now < 0) focusRow(by > 0 ? 0 : rows().length - 1);
  else focusRow(now + by, name);
}

function decideHere(wanted) {
  const item = rows().find((one) => one.contains(document.activeElement));
  if (item) decide(item, wanted);
  else note("viewer-note", "Move to a tag first, with the arrow keys up and down.");
}

const KEYS = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  ArrowUp: () => moveInTags(-1),
  ArrowDown: () => moveInTags(1),
  a: () => decideHere("accept"),
  r: () => decideHere("reject"),
  u: undo,
  m: like,
};

function filter(tag) {
  const act = grid.filter;
  $("viewer").close();
  act(tag);
}

function like() {
  const path = photo();
  $("viewer").close();
  grid.like(path);
}

document.addEventListener("keydown", (event) => {
  if (!$("viewer").open || event.ctrlKey || event.altKey || event.metaKey) return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || event.target === $("viewer-word")) return;
  event.preventDefault();
  act();
});
$("viewer").addEventListener("close", () => {
  leaving.abort();
  grid.closed(place);
});
$("viewer-close").addEventListener("click", () => $("viewer").close());
$("viewer-back").addEventListener("click", () => step(-1));
$("viewer-on").addEventListener("click", () => step(1));
$("viewer-undo").addEventListener("click", undo);
$("viewer-add").addEventListener("submit", (event) => { event.preventDefault(); add(); });
$("viewer-like").addEventListener("click", like);
