// "Tag a photo": a photo that was dropped, pasted or chosen, or one of the samples.

import { ask, askJson, postForm } from "./api.js";
import { $, bar, element, encodedNote, note, percent } from "./dom.js";

let photo = null;
let trained = true; // whether the model was trained on some of its tags, so that the others are worth a mark
let asked = 0;
let picked = 0;

export const taggedPhoto = () => photo;

export function setTrained(is) {
  trained = is;
  $("unseen-box").hidden = !is;
  document.querySelector("footer span").hidden = !is;
}

export function show(file, credit = "") {
  picked++;
  photo = file;
  $("credit").textContent = credit && `Photo: ${credit}`;
  for (const one of document.querySelectorAll("#samples button")) {
    one.setAttribute("aria-pressed", String(Boolean(credit) && one.title === credit));
  }
  URL.revokeObjectURL($("photo").src);
  $("photo").src = URL.createObjectURL(file);
  $("photo").hidden = false;
  $("similar").hidden = false;
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
    const answer = await postForm("tag", form);
    if (mine !== asked) return; // superseded by a later request
    const longest = Math.max(0.001, ...answer.tags.map((one) => one.score));
    $("tags").replaceChildren(...answer.tags.map((one) => row(one, longest)));
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

export function row(tag, longest) {
  const mark = trained && !tag.seen;
  const made = element("li", mark ? "new" : "");
  made.append(element("span", "name", tag.tag + (mark ? "*" : "")), bar(tag.score / longest));
  made.append(element("span", "share", percent(tag.probability)));
  if (tag.also.length) made.append(element("span", "also", `also ${tag.also.join(", ")}`));
  made.title = `score ${tag.score.toFixed(2)}, principal vector ${tag.principal_vector + 1}${understood(tag)}`;
  return made;
}

function understood(tag) {
  if (tag.understood === "encoded") return ", encoded as a whole";
  return tag.made_of === tag.tag ? "" : `, understood as ${tag.made_of}`;
}

export async function offerSamples() {
  const samples = await askJson("page/samples");
  $("samples").replaceChildren(...samples.map((one) => {
    const item = element("li"), choice = element("button"), image = element("img");
    choice.type = "button";
    choice.title = `${one.title}, ${one.credit}`;
    image.src = `page/samples/${one.photo}`;
    image.alt = one.title;
    choice.append(image);
    choice.addEventListener("click", () => showSample(one));
    item.append(choice);
    return item;
  }));
  if (!photo && samples.length) await showSample(samples[0]);
}

async function showSample(one) {
  const mine = ++picked;
  const file = await (await ask(`page/samples/${one.photo}`)).blob();
  if (mine === picked) show(file, `${one.title}, ${one.credit}`); // else superseded by a later choice
}

let waiting;
$("words").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(tag, 250); });
$("options").addEventListener("submit", (event) => { event.preventDefault(); tag(); });
for (const id of ["unseen", "everything", "top"]) $(id).addEventListener("change", tag);
$("file").addEventListener("change", () => $("file").files.length && show($("file").files[0]));
