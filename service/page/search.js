// "Search your photos": by words, by an example photo, in a folder, between two dates.

import { picture, postForm, postJson } from "./api.js";
import { $, encodedNote, note, words } from "./dom.js";
import { addPhotos, baseName, clearPhotos, focusPhoto, shownPhotos, thumbnail } from "./grid.js";
import { openViewer } from "./viewer.js";

const PAGE = 24; // photos loaded at once

let example = null; // the photo to search by: a File, or the path of one in the index
// What is shown, whatever the fields say meanwhile: {fields, file, next (offset of the next page, or null), loading}.
let current = { next: null };

function setExample(given) {
  example = given;
  URL.revokeObjectURL($("example-photo").src);
  $("example-photo").removeAttribute("src");
  $("example").hidden = !given;
  if (!given) return;
  const path = typeof given === "string";
  $("example-name").textContent = path ? baseName(given) : given.name || "the photo above";
  const shown = path ? picture(given, 96) : Promise.resolve(URL.createObjectURL(given));
  shown.then((url) => { if (example === given) $("example-photo").src = url; }, () => {});
}

/** The fields of the form that are filled in, as the service names them. */
function fields() {
  const given = {
    words: words("wanted"),
    without: words("unwanted"),
    folder: $("folder").value.trim(),
    since: $("since").value,
    until: $("until").value,
    like: typeof example === "string" ? example : "",
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value.length));
}

/**
 * Search for what the form says.
 * @param {boolean} focus - move the focus to the first result
 * @param {boolean} remember - as a step of the browser's history, with the search in the address
 */
async function search({ focus = false, remember = true } = {}) {
  const given = fields();
  const file = example instanceof Blob ? example : null;
  if (!given.words && !given.like && !file) {
    return note("search-note", "Enter a word to search for, or choose an example photo.");
  }
  current = { fields: given, file, next: 0, loading: null };
  if (remember) {
    const asked = String(new URLSearchParams(Object.entries(given).map(([name, value]) => [name, String(value)])));
    const address = location.pathname + (asked && `?${asked}`);
    if (address !== location.pathname + location.search) history.pushState(null, "", address);
  }
  note("search-note", "…");
  await more();
  if (focus && !focusPhoto(0)) $("wanted").focus();
}

/** Load the next page of the current search, unless it is on its way. */
function more() {
  const mine = current;
  mine.loading ??= load(mine).finally(() => { mine.loading = null; });
  return mine.loading;
}

async function load(mine) {
  if (mine.next === null) return;
  try {
    const answer = await request({ ...mine.fields, limit: PAGE, offset: mine.next }, mine.file);
    if (mine !== current) return; // superseded by a later search
    if (!mine.next) clearPhotos();
    addPhotos(answer.photos, { open, like: (photo) => searchLike(photo) });
    mine.next = answer.next;
    $("more").hidden = mine.next === null;
    nearEnd.unobserve($("more"));
    nearEnd.observe($("more")); // reports again, if the end of the grid is still in view
    const count = shownPhotos().length;
    const text = count ? `Top ${count} of ${answer.indexed} photos, ${answer.milliseconds.toFixed(0)} ms.`
      : answer.indexed ? "No photo matches." : "The index is empty. Update it first.";
    const encoded = Object.keys(answer.understood).filter((word) => answer.understood[word] === "encoded");
    note("search-note", `${text}${encodedNote(encoded)}`);
  } catch (error) {
    if (mine !== current) return;
    if (!mine.next) clearPhotos();
    $("more").hidden = !mine.next; // to try again
    note("search-note", error.message, true);
  }
}

function request(given, file) {
  if (!file) return postJson("search", { words: [], ...given });
  const form = new FormData();
  form.append("photo", file, "photo");
  for (const [name, value] of Object.entries(given)) {
    for (const one of [value].flat()) form.append(name, one);
  }
  return postForm("search", form);
}

const nearEnd = new IntersectionObserver((entries) => {
  if (entries.some((one) => one.isIntersecting) && current.next) more();
}, { rootMargin: "600px" });

function open(place) {
  openViewer(place, {
    photos: shownPhotos,
    more,
    thumbnail: (at) => thumbnail(at)?.src,
    like: (photo) => searchLike(photo),
    filter,
    closed: focusPhoto,
  });
}

/**
 * Search by a photo.
 * @param {File|Blob|string} photo - or the path of one in the index
 * @param {string} wanted - the words to combine it with; without, the photo takes the place of those in the form
 */
export function searchLike(photo, wanted = "") {
  $("wanted").value = wanted;
  setExample(photo);
  return search({ focus: true });
}

/** Narrow the search to a tag. */
function filter(tag) {
  if (!words("wanted").includes(tag)) $("wanted").value = [...words("wanted"), tag].join(", ");
  return search({ focus: true });
}

/** Search for what the page's address says, if anything. */
export function restore() {
  $("viewer").close();
  const asked = new URLSearchParams(location.search);
  const names = { words: "wanted", without: "unwanted", folder: "folder", since: "since", until: "until" };
  for (const [name, id] of Object.entries(names)) $(id).value = (asked.get(name) ?? "").replaceAll(/,(?! )/g, ", ");
  $("narrow").open = ["folder", "since", "until"].some((name) => asked.get(name));
  setExample(asked.get("like"));
  if (asked.get("words") || asked.get("like")) return search({ remember: false });
  current = { next: null };
  clearPhotos();
  $("more").hidden = true;
  note("search-note", "");
}

async function updateIndex() {
  $("reindex").disabled = true;
  try {
    let added = 0;
    for (let answer = { remaining: 1 }; answer.remaining;) {
      answer = await postJson("index", {});
      added += answer.added;
      const refused = Object.keys(answer.refused).length;
      const left = answer.remaining ? `, ${answer.remaining} remaining…` : `; ${answer.indexed} photos in the index.`;
      note("search-note", `${added} added${refused ? `, ${refused} could not be read` : ""}${left}`);
    }
  } catch (error) {
    note("search-note", error.message, true);
  }
  $("reindex").disabled = false;
}

window.addEventListener("popstate", restore);
$("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
$("more").addEventListener("click", more);
$("reindex").addEventListener("click", updateIndex);
$("by-photo").addEventListener("click", () => $("example-file").click());
$("example-file").addEventListener("change", () => {
  if ($("example-file").files.length) searchLike($("example-file").files[0], $("wanted").value);
  $("example-file").value = ""; // so that the same file can be chosen again
});
$("example-remove").addEventListener("click", () => {
  setExample(null);
  $("wanted").focus();
  if (words("wanted").length) search();
});
