// Requests to the page's own service, with the API key where it asks for one.

import { $ } from "./dom.js";

const ATTEMPTS = 4; // of a request that is refused because the service is busy

/**
 * Send a request.
 * @throws {Error} with the service's own explanation
 */
export async function ask(path, options = {}, attempts = ATTEMPTS) {
  const key = $("key").value;
  const answer = await fetch(path, { ...options, headers: { ...options.headers, ...(key && { "X-API-Key": key }) } });
  if (answer.status === 401) $("key-box").hidden = false;
  if (answer.status === 503 && attempts > 1) {
    const seconds = Number(answer.headers.get("Retry-After")) || 1;
    await new Promise((ready) => setTimeout(ready, 1000 * seconds));
    return ask(path, options, attempts - 1);
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.error || `Request failed with status ${answer.status}.`);
  }
  return answer;
}

export const askJson = async (path, options) => (await ask(path, options)).json();

export const postJson = (path, body, options) => askJson(path, {
  ...options, method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
});

export const postForm = (path, form) => askJson(path, { method: "POST", body: form });

const encoded = (photo) => photo.split("/").map(encodeURIComponent).join("/");

/** The path of a photo's tags. */
export const tagsOf = (photo) => `tags/${encoded(photo)}`;

/**
 * Fetch a JPEG of a photo below the photo root, no larger than `side` pixels; by script, since an image element cannot
 * send the API key.
 * @returns {Promise<string>} an object URL, to be revoked when it is no longer shown
 */
export async function picture(photo, side, options) {
  const answer = await ask(`photo/${encoded(photo)}?side=${side}`, options);
  return URL.createObjectURL(await answer.blob());
}
