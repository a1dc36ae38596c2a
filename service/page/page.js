// The page's entry. Plain JavaScript without libraries; the page only sends requests to its own service.

import { askJson } from "./api.js";
import { $, note } from "./dom.js";
import { restore, searchLike } from "./search.js";
import { offerSamples, setTrained, show, taggedPhoto } from "./tag.js";

async function describe() {
  const model = await askJson("model");
  const trained = model.seen > 0;
  setTrained(trained);
  const data = model.info.training.data;
  const of = trained ? `trained on ${data.train_photos.toLocaleString("en")} photos (${data.source}); ${model.tags} tags, `
    + `${model.unseen} of them not seen in training` : `the starter, not trained on any photo of yours; ${model.tags.toLocaleString("en")} everyday words`;
  $("model").textContent = `${model.name} ${model.version}: ${of}. Any other word works too.`;
}

async function describeIndex() {
  const index = await askJson("index");
  if (index.indexed || $("search-note").textContent) return;
  note("search-note", index.root ? "The index is empty. Update it first."
    : "The service has no folder of photos. Start it with ZEROTAG_ROOT.");
}

// A photo that is dropped or pasted in the search is an example to search by; anywhere else it is tagged.
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    const example = $("find").contains(event.target);
    $("drop").classList.toggle("over", kind === "dragover" && !example);
    $("find").classList.toggle("over", kind === "dragover" && example);
    const file = kind === "drop" && event.dataTransfer.files[0];
    if (!file || $("viewer").open) return;
    if (example) searchLike(file, $("wanted").value);
    else show(file);
  });
}
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (!file || $("viewer").open) return;
  if ($("find").contains(document.activeElement)) searchLike(file, $("wanted").value);
  else show(file);
});
$("similar").addEventListener("click", () => searchLike(taggedPhoto()));
function start() {
  describe().then(offerSamples).catch(() => {}); // without the API key, which is asked for then
  describeIndex().catch(() => {});
}

$("key").addEventListener("change", start);
start();
restore();
