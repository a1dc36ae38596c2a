// The grid of search results. Arrow keys move in it; only the photo where they are is a stop of the Tab key.

import { picture } from "./api.js";
import { $, button, element } from "./dom.js";

const SIDE = 320; // of thumbnails, in pixels
let photos = []; // {photo, score}, in the order of the grid
let current = 0; // the place of the one that the Tab key reaches

export const shownPhotos = () => photos;
export const thumbnail = (place) => $("found").children[place]?.querySelector("img");
export const baseName = (photo) => photo.split("/").pop();

export function clearPhotos() {
  for (const image of document.querySelectorAll("#found img")) URL.revokeObjectURL(image.src);
  $("found").replaceChildren();
  $("found-help").hidden = true;
  photos = [];
  current = 0;
}

/**
 * Append results.
 * @param {{photo: string, score: number}[]} added
 * @param {{open: (place: number) => void, like: (photo: string) => void}} acts - what to do on a photo's buttons
 */
export function addPhotos(added, acts) {
  const cards = added.map((hit, index) => card(hit, photos.length + index, acts));
  photos = [...photos, ...added];
  $("found").append(...cards);
  $("found-help").hidden = !photos.length;
  reach(current);
}

function card(hit, place, acts) {
  const item = element("li"), figure = element("figure"), image = element("img"), caption = element("figcaption");
  image.alt = hit.photo;
  const open = button("open", "", () => acts.open(place));
  open.append(image);
  caption.append(element("span", "", baseName(hit.photo)), element("span", "", hit.score.toFixed(2)));
  const like = button("like quiet", "More like this", () => acts.like(hit.photo), `More like this: ${hit.photo}`);
  figure.append(open, caption, like);
  figure.title = hit.photo;
  item.append(figure);
  item.addEventListener("focusin", () => reach(place));
  inView.observe(item);
  item.load = () => picture(hit.photo, SIDE).then((url) => { image.src = url; }, () => item.classList.add("broken"));
  return item;
}

// Thumbnails are made by the service when they are about to be seen.
const inView = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    inView.unobserve(target);
    target.load();
  }
}, { rootMargin: "300px" });

/** Make a photo the one that the Tab key reaches. */
function reach(place) {
  const cards = $("found").children;
  for (const one of cards[current]?.querySelectorAll("button") ?? []) one.tabIndex = -1;
  current = place;
  for (const one of cards[current]?.querySelectorAll("button") ?? []) one.tabIndex = 0;
}

/** Move the focus to a photo; false if there is none at this place. */
export function focusPhoto(place) {
  const open = $("found").children[place]?.querySelector(".open");
  open?.focus();
  return Boolean(open);
}

$("found").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key.toLowerCase() === "m") {
    event.preventDefault();
    $("found").children[current].querySelector(".like").click();
  }
  const columns = getComputedStyle($("found")).gridTemplateColumns.split(" ").length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -current };
  steps.End = photos.length - 1 - current;
  if (!(event.key in steps)) return;
  event.preventDefault();
  focusPhoto(current + steps[event.key]);
});
