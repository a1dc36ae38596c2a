"use strict";
// Plain JavaScript without libraries; the page only sends requests to its own service.

const $ = (id) => document.getElementById(id);
let photo = null;
let trained = true; // whether the model was trained on some of its tags, so that the others are worth a mark
let asked = 0;
let picked = 0;

async function ask(path, options = {}) {
  const key = $("key").value;
  const answer = await fetch(path, { ...options, headers: { ...options.headers, ...(key && { "X-API-Key": key }) } });
  if (answer.status === 401) $("key-box").hidden = false;
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.error || `Request failed with status ${answer.status}.`);
  }
  return answer;
}

async function askJson(path, options) {
  return (await ask(path, options)).json();
}

function note(id, text, bad = false) {
  $(id).textContent = text;
  $(id).classList.toggle("bad", bad);
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

// ---- tags

function show(file, credit = "") {
  picked++;
  photo = file;
  $("credit").textContent = credit && `Photo: ${credit}`;
  for (const one of document.querySelectorAll("#samples button")) {
    one.setAttribute("aria-pressed", String(Boolean(credit) && one.title === credit));
  }
  URL.revokeObjectURL($("photo").src);
  $("photo").src = URL.createObjectURL(file);
  $("photo").hidden = false;
  tag();
}

async function tag() {
  if (!photo) return;
  const mine = ++asked;
  const form = new FormData();
  form.append("photo", photo, "photo");
  form.append("top", $("top").value);
  form.append("task", $("unseen").checked ? "unseen" : "all");
  form.append("all", $("everything").checked);
  if ($("words").value.trim()) form.append("vocabulary", $("words").value);
  note("tag-note", "…");
  try {
    const answer = await askJson("tag", { method: "POST", body: form });
    if (mine !== asked) return; // superseded by a later request
    const longest = Math.max(0.001, ...answer.tags.map((one) => one.score));
    $("tags").replaceChildren(...answer.tags.map((one) => bar(one, longest)));
    const spent = Object.values(answer.milliseconds).reduce((sum, one) => sum + one, 0);
    const missing = answer.reason && ` ${answer.reason}.`;
    const encoded = answer.tags.filter((one) => one.understood === "encoded").map((one) => one.tag);
    const none = answer.tags.length ? "" : " No tag is probable enough.";
    note("tag-note", `${spent.toFixed(0)} ms.${none}${missing}${encodedNote(encoded)}`);
  } catch (error) {
    if (mine !== asked) return;
    $("tags").replaceChildren();
    note("tag-note", error.message, true);
  }
}

function encodedNote(phrases) {
  return phrases.length ? ` Encoded as a whole: ${phrases.join(", ")}.` : "";
}

function bar(tag, longest) {
  const mark = trained && !tag.seen;
  const row = element("li", mark ? "new" : "");
  const track = element("div", "bar");
  // An SVG bar, since the content security policy forbids inline styles.
  track.innerHTML = '<svg viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true"><rect height="1"/></svg>';
  track.querySelector("rect").setAttribute("width", Math.max(0, 100 * tag.score / longest).toFixed(1));
  row.append(element("span", "name", tag.tag + (mark ? "*" : "")), track);
  row.append(element("span", "share", `${(100 * tag.probability).toFixed(0)}%`));
  if (tag.also.length) row.append(element("span", "also", `also ${tag.also.join(", ")}`));
  row.title = `score ${tag.score.toFixed(2)}, principal vector ${tag.principal_vector + 1}${understood(tag)}`;
  return row;
}

function understood(tag) {
  if (tag.understood === "encoded") return ", encoded as a whole";
  return tag.made_of === tag.tag ? "" : `, understood as ${tag.made_of}`;
}

let waiting;
$("words").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(tag, 250); });
$("options").addEventListener("submit", (event) => { event.preventDefault(); tag(); });
$("unseen").addEventListener("change", tag);
$("everything").addEventListener("change", tag);
$("top").addEventListener("change", tag);
$("file").addEventListener("change", () => $("file").files.length && show($("file").files[0]));
$("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); $("file").click(); }
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) show(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) show(file);
});

// ---- search

const list = (id) => $(id).value.split(",").map((word) => word.trim()).filter(Boolean);
let next = 0;

async function search(offset) {
  const body = JSON.stringify({ words: list("wanted"), without: list("unwanted"), offset, limit: 24 });
  if (!list("wanted").length) return note("search-note", "Enter a word to search for.");
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await askJson("search", { method: "POST", headers, body });
    if (!offset) $("found").replaceChildren();
    $("found").append(...answer.photos.map(card));
    next = answer.next;
    $("more").hidden = next === null;
    const count = $("found").children.length;
    const text = count ? `Top ${count} of ${answer.indexed} photos, ${answer.milliseconds.toFixed(0)} ms.`
      : answer.indexed ? "No photo matches." : "The index is empty. Update it first.";
    const encoded = Object.keys(answer.understood).filter((word) => answer.understood[word] === "encoded");
    note("search-note", `${text}${encodedNote(encoded)}`);
  } catch (error) {
    note("search-note", error.message, true);
  }
}

function card(hit) {
  const item = element("li", "");
  const figure = element("figure", "");
  const image = element("img", "");
  image.alt = hit.photo;
  image.loading = "lazy";
  const path = `photo/${hit.photo.split("/").map(encodeURIComponent).join("/")}`;
  // Fetched by script, since an image element cannot send the API key.
  ask(path).then((answer) => answer.blob()).then((blob) => { image.src = URL.createObjectURL(blob); }, () => {});
  image.addEventListener("load", () => URL.revokeObjectURL(image.src));
  const caption = element("figcaption", "");
  caption.append(element("span", "", hit.photo.split("/").pop()), element("span", "", hit.score.toFixed(2)));
  figure.append(image, caption);
  figure.title = hit.photo;
  item.append(figure);
  return item;
}

$("search").addEventListener("submit", (event) => { event.preventDefault(); search(0); });
$("more").addEventListener("click", () => search(next));
$("reindex").addEventListener("click", async () => {
  $("reindex").disabled = true;
  try {
    let added = 0;
    for (let answer = { remaining: 1 }; answer.remaining;) {
      const headers = { "Content-Type": "application/json" };
      answer = await askJson("index", { method: "POST", headers, body: "{}" });
      added += answer.added;
      const refused = Object.keys(answer.refused).length;
      const left = answer.remaining ? `, ${answer.remaining} remaining…` : `; ${answer.indexed} photos in the index.`;
      note("search-note", `${added} added${refused ? `, ${refused} could not be read` : ""}${left}`);
    }
  } catch (error) {
    note("search-note", error.message, true);
  }
  $("reindex").disabled = false;
});

async function describe() {
  const model = await askJson("model");
  trained = model.seen > 0;
  $("unseen-box").hidden = !trained;
  document.querySelector("footer span").hidden = !trained;
  const data = model.info.training.data;
  const of = trained ? `trained on ${data.train_photos.toLocaleString("en")} photos (${data.source}); ${model.tags} tags, `
    + `${model.unseen} of them not seen in training` : `the starter, not trained on any photo of yours; ${model.tags.toLocaleString("en")} everyday words`;
  $("model").textContent = `${model.name} ${model.version}: ${of}. Any other word works too.`;
}
$("key").addEventListener("change", () => describe().then(offerSamples).catch(() => {}));

// ---- samples

async function offerSamples() {
  const samples = await askJson("page/samples");
  $("samples").replaceChildren(...samples.map((one) => {
    const item = element("li", ""), button = element("button", ""), image = element("img", "");
    button.type = "button";
    button.title = `${one.title}, ${one.credit}`;
    image.src = `page/samples/${one.photo}`;
    image.alt = one.title;
    button.append(image);
    button.addEventListener("click", () => showSample(one));
    item.append(button);
    return item;
  }));
  if (!photo && samples.length) await showSample(samples[0]);
}

async function showSample(one) {
  const mine = ++picked;
  const file = await (await ask(`page/samples/${one.photo}`)).blob();
  if (mine === picked) show(file, `${one.title}, ${one.credit}`); // else superseded by a later choice
}

describe().then(offerSamples).catch(() => {});
