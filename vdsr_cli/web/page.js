"use strict";
/* Around viewer.js: a picture is chosen, sent as the body of one request, and the answer's lines
   say how far it is. Leaving the page, or Cancel, ends the request and with it the work. */
const settings = JSON.parse($("settings").textContent);
let picture = null;
let running = null;

for (const { name, scale } of settings.models) make("option", `${name} (x${scale})`, $("model")).value = name;
const purposes = new Map(settings.models.map(({ name, purpose }) => [name, purpose]));
$("model").onchange = () => { $("purpose").textContent = purposes.get($("model").value); };
$("model").onchange();
$("n").max = settings.most_samples;
$("temperature").oninput = () => { $("degrees").textContent = $("temperature").value; };

function say(status, error = "") {
  $("status").textContent = status;
  $("error").textContent = error;
}

/* The picture. */
function choose(file) {
  if (!file || running) return;
  const isTooLarge = file.size > settings.upload_bytes;
  picture = isTooLarge ? null : file;
  $("go").disabled = picture === null;
  say("", isTooLarge ? `${file.name} has more than ${settings.upload_bytes.toLocaleString("en")} bytes` : "");
  $("chosen").textContent = `${file.name}, ${Math.ceil(file.size / 1000).toLocaleString("en")} kB`;
  URL.revokeObjectURL($("preview").src);
  $("preview").hidden = true;
  $("preview").src = URL.createObjectURL(file);
}
$("preview").onload = () => { $("preview").hidden = false; }; /* browsers show no TIFF */
$("file").onchange = () => choose($("file").files[0]);
addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault(); /* anywhere: a browser would leave the page for the picture */
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files[0]);
  });
}

/* The request. */
async function* linesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    yield* lines.map((line) => JSON.parse(line));
  }
}
async function draw(signal) {
  const query = new URLSearchParams({ name: picture.name });
  for (const id of ["model", "n", "temperature", "seed"]) query.set(id, $(id).value);
  const answer = await fetch(`draw?${query}`, { method: "POST", body: picture, signal });
  if (!answer.ok) throw await answer.json();
  for await (const line of linesOf(answer.body)) {
    if (line.status === "waiting") say(line.ahead ? `Waiting: ${line.ahead} before you` : "Starting");
    if (line.status === "running") {
      say("Drawing");
      $("progress").max = line.tiles;
      $("progress").value = line.done;
    }
    if (line.status === "failed") throw line;
    if (line.status === "done") return line.result;
  }
  throw { error: "the server ended before the picture was done" };
}
async function saveAsJpeg(src, name) {
  const image = await createImageBitmap(await (await fetch(src)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height);
  const paper = canvas.getContext("2d");
  paper.fillStyle = "#fff"; /* JPEG has no transparency */
  paper.fillRect(0, 0, image.width, image.height);
  paper.drawImage(image, 0, 0);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
function present(result) {
  show(result);
  $("notes").replaceChildren();
  for (const note of result.notes) make("li", note, $("notes"));
  $("downloads").replaceChildren();
  for (const { src, name } of result.files) {
    const link = make("a", src.split("/").pop(), $("downloads"));
    link.href = src;
    link.download = name;
    link.onclick = (event) => {
      if ($("format").value === "png") return;
      event.preventDefault();
      saveAsJpeg(src, name.replace(/\.png$/, ".jpg"));
    };
  }
  $("all").href = result.all.src;
  $("all").download = result.all.name;
  $("result").hidden = false;
  $("title").focus();
}
$("stop").onclick = () => running.abort();
$("form").onsubmit = async (event) => {
  event.preventDefault();
  running = new AbortController();
  $("go").disabled = true;
  $("stop").hidden = $("progress").hidden = false;
  $("progress").removeAttribute("value");
  say("Sending");
  try {
    present(await draw(running.signal));
    say("Done");
  } catch (failure) {
    const reason = failure.error ? [failure.error, failure.hint].filter(Boolean).join(". ") : "the server does not answer";
    say(running.signal.aborted ? "Cancelled" : "", running.signal.aborted ? "" : reason);
  }
  $("stop").hidden = $("progress").hidden = true;
  $("go").disabled = false;
  running = null;
};
