// What the other modules share of the document.

export const $ = (id) => document.getElementById(id);

/** Show a text below a form, or an error if `bad`. */
export function note(id, text, bad = false) {
  $(id).textContent = text;
  $(id).classList.toggle("bad", bad);
}

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/** A button that does something when it is clicked; `label` for screen readers if the text does not say enough. */
export function button(className, text, act, label = "") {
  const made = element("button", className, text);
  made.type = "button";
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

/** A horizontal bar; an SVG, since the content security policy forbids inline styles. */
export function bar(share) {
  const track = element("div", "bar");
  track.innerHTML = '<svg viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true"><rect height="1"/></svg>';
  track.querySelector("rect").setAttribute("width", Math.max(0, 100 * share).toFixed(1));
  return track;
}

export const percent = (probability) => `${(100 * probability).toFixed(0)}%`;

/** The words of a comma-separated field. */
export const words = (id) => $(id).value.split(",").map((word) => word.trim()).filter(Boolean);

/** What to add to a note about phrases that the text encoder took as a whole. */
export const encodedNote = (phrases) => (phrases.length ? ` Encoded as a whole: ${phrases.join(", ")}.` : "");
