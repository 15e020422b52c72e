"use strict";

const find = (selector, root = document) => root.querySelector(selector);
const formatName = (name) => name.replaceAll("_", " ");
const formatPercent = (fraction) => {
  let digits = 1;
  while (digits < 6 && Number((100 * fraction).toFixed(digits)) === 100) digits += 1; // tell it apart from 100%
  return `${(100 * fraction).toFixed(digits)}\u00a0%`;
};
const formatMegabytes = (bytes) => `${Number((bytes / 1e6).toFixed(1))} MB`;
const base = document.body.dataset.base; // of the addresses of requests
const uploadBytes = Number(document.body.dataset.uploadBytes);
const showsTraining = document.body.dataset.showsTraining === "true";

const drop = find("#drop");
const result = find("#result");
const photograph = find("#photograph");
const faceList = find("#faces");
const error = find("#error");
const statusLine = find("#status");
let current = new AbortController(); // aborts the request that is under way

async function predict(file, whole = false) {
  reset();
  const { signal } = current;
  if (file.size > uploadBytes) {
    showError(`${file.name || "The photograph"} has ${formatMegabytes(file.size)}; the limit is ${formatMegabytes(uploadBytes)}.`);
    return;
  }
  statusLine.textContent = "Predicting…";
  const form = new FormData();
  form.append("photograph", file, "photograph"); // the server need not know the file's own name
  try {
    const response = await fetch(`${base}predict?top=5&heat_map=true&nearest=${showsTraining}&whole=${whole}`, {
      method: "POST",
      body: form,
      headers: makeHeaders(),
      signal,
    });
    if (!response.headers.get("Content-Type")?.startsWith("application/json")) {
      showError(`A server on the way responded instead of this one (status ${response.status}).`);
      return;
    }
    const content = await response.json();
    if (response.ok) await showPrediction(file, content, signal);
    else showError(content.message);
    if (response.status === 401) find("#token")?.focus();
  } catch {
    // An aborted request has made way for another one.
    if (!signal.aborted) showError("The server does not respond. Is it still running?");
  }
}

function makeHeaders() {
  const token = find("#token");
  // A header must be ASCII, and so is every token.
  return token ? { Authorization: `Bearer ${token.value.replace(/[^!-~]/g, "?")}` } : {};
}

function reset() {
  current.abort();
  current = new AbortController();
  result.hidden = error.hidden = true;
  statusLine.textContent = error.textContent = "";
  faceList.replaceChildren();
  for (const box of document.querySelectorAll(".box")) box.remove();
  if (photograph.src) URL.revokeObjectURL(photograph.src);
  photograph.removeAttribute("src");
}

function showError(message) {
  statusLine.textContent = "";
  error.textContent = message;
  error.hidden = false;
}

async function showPrediction(file, content, signal) {
  photograph.src = URL.createObjectURL(file);
  await photograph.decode().catch(() => {}); // the server may read what the browser cannot
  if (signal.aborted) return;
  content.faces.forEach((face, index) => {
    const entry = makeFaceEntry(face, content.faces.length > 1 ? index + 1 : 0);
    faceList.append(entry);
    if (!face.box) return;
    const box = makeBox(face.box, content, index + 1);
    photograph.parentElement.append(box);
    const highlight = (on) => [box, entry].forEach((element) => element.classList.toggle("current", on));
    for (const element of [box, entry]) {
      element.addEventListener("pointerenter", () => highlight(true));
      element.addEventListener("pointerleave", () => highlight(false));
    }
    box.addEventListener("click", () => entry.scrollIntoView({ block: "nearest", behavior: "smooth" }));
  });
  result.hidden = false;
  find("#no-face").hidden = content.faces.length > 0;
  if (!content.faces.length) {
    find("#whole").onclick = () => predict(file, true);
    statusLine.textContent = "No face found.";
    return;
  }
  const names = content.faces.map((face) => (face.known ? formatName(face.candidates[0].name) : "unknown"));
  statusLine.textContent = `${names.length === 1 ? "Prediction" : `${names.length} faces`}: ${names.join(", ")}.`;
}

// Boxes may reach beyond the photograph; they are shown up to its edges.
function makeBox(box, { width_px: width, height_px: height }, number) {
  const [left, right] = [box.left, box.right].map((x) => (100 * Math.min(Math.max(x, 0), width)) / width);
  const [top, bottom] = [box.top, box.bottom].map((y) => (100 * Math.min(Math.max(y, 0), height)) / height);
  const element = document.createElement("button");
  element.type = "button";
  element.className = "box";
  element.setAttribute("aria-label", `Face ${number}`);
  Object.assign(element.style, {
    left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`,
  });
  const label = document.createElement("span");
  label.textContent = number;
  element.append(label);
  return element;
}

function makeFaceEntry(face, number) {
  const entry = find("#face").content.firstElementChild.cloneNode(true);
  entry.classList.toggle("unknown", !face.known);
  const name = face.known ? makeName(face.candidates[0].name) : "Unknown";
  find("h2", entry).append(number ? `${number}. ` : "", name);
  find(".verdict", entry).textContent = face.known ? "" : "It resembles none of these people enough.";
  find("tbody", entry).append(...face.candidates.map(makeCandidateRow));
  find(".seen", entry).src = `data:image/jpeg;base64,${face.seen}`;
  find(".heat", entry).src = `data:image/jpeg;base64,${face.heat_map}`;
  if (face.nearest) find(".nearest ul", entry).append(...face.nearest.map(makeNearestItem));
  else find(".nearest", entry).remove();
  return entry;
}

// Names may be written from right to left.
function makeName(name) {
  const element = document.createElement("bdi");
  element.textContent = formatName(name);
  return element;
}

function makeCandidateRow({ name, probability }) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.append(makeName(name));
  const bar = document.createElement("div");
  bar.className = "bar";
  const value = document.createElement("div");
  value.style.width = `${100 * probability}%`;
  bar.append(value);
  row.append(head);
  row.insertCell().append(bar);
  row.insertCell().textContent = formatPercent(probability);
  return row;
}

function makeNearestItem({ person, thumbnail }) {
  const item = document.createElement("li");
  const image = document.createElement("img");
  image.src = `data:image/jpeg;base64,${thumbnail}`;
  image.alt = "";
  item.append(image, makeName(person));
  return item;
}

for (const input of [find("#file"), find("#camera")]) {
  input.addEventListener("change", () => {
    if (input.files.length) predict(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
}
find("#choose").addEventListener("click", () => find("#file").click());
find("#access")?.addEventListener("submit", (event) => event.preventDefault());

// On the whole page: elsewhere, a browser would leave the page to show a dropped file.
addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("active");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("active");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("active");
  predictTransfer(event.dataTransfer);
});
addEventListener("paste", (event) => {
  if (event.target !== find("#token")) predictTransfer(event.clipboardData);
});

function predictTransfer({ files }) {
  if (files.length === 1) {
    predict(files[0]);
    return;
  }
  reset();
  showError(files.length ? "Send one photograph at a time." : "There is no file in what you dropped or pasted.");
}

const camera = find("dialog");
const video = find("video");

find("#open-camera").addEventListener("click", async ({ currentTarget: button }) => {
  button.disabled = true; // a second click would start a second stream
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
    camera.showModal();
  } catch {
    find("#camera").click(); // without HTTPS or a camera: what the operating system offers
  }
  button.disabled = false;
});
video.addEventListener("loadeddata", () => { find("#capture").disabled = false; });
find("#capture").addEventListener("click", () => {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => blob && predict(blob), "image/jpeg", 0.92);
  camera.close();
});
find("#cancel").addEventListener("click", () => camera.close());
camera.addEventListener("close", () => {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
  find("#capture").disabled = true;
});
