"use strict";

// What the server's pages share. A page's own script defines takeFiles(files, place): what to do with files that were
// chosen, taken, dropped or pasted. `place` is the element of class drop that they are for, or null.

const find = (selector, root = document) => root.querySelector(selector);
const formatMegabytes = (bytes) => `${Number((bytes / 1e6).toFixed(1))} MB`;
const base = document.body.dataset.base; // of the addresses of requests
const uploadBytes = Number(document.body.dataset.uploadBytes);

const error = find("#error");
const statusLine = find("#status");
const result = find("#result");
let current = new AbortController(); // aborts the request that is under way

// Writes a number of percent, with as many digits as tell it apart from each of `ends`; returns null where six do not.
function writePercent(percent, ends) {
  for (let digits = 1; digits <= 6; digits++) {
    const text = percent.toFixed(digits);
    if (!ends.includes(Number(text))) return text;
  }
  return null;
}

// Returns the response's content, or null when there is none to show: then the reason is shown, if there is one.
async function postPhotographs(path, photographs, signal) {
  const form = new FormData();
  // The server need not know the files' own names.
  for (const [field, file] of Object.entries(photographs)) form.append(field, file, field);
  try {
    const response = await fetch(base + path, { method: "POST", body: form, headers: makeHeaders(), signal });
    if (!response.headers.get("Content-Type")?.startsWith("application/json")) {
      showError(`A server on the way responded instead of this one (status ${response.status}).`);
      return null;
    }
    const content = await response.json();
    if (response.ok) return content;
    showError(content.message);
    if (response.status === 401) find("#token")?.focus();
  } catch {
    // An aborted request has made way for another one.
    if (!signal.aborted) showError("The server does not respond. Is it still running?");
  }
  return null;
}

function makeHeaders() {
  const token = find("#token");
  // A header must be ASCII, and so is every token.
  return token ? { Authorization: `Bearer ${token.value.replace(/[^!-~]/g, "?")}` } : {};
}

// Forgets the last result, and returns the signal for a new request.
function resetResult() {
  current.abort();
  current = new AbortController();
  result.hidden = error.hidden = true;
  statusLine.textContent = error.textContent = "";
  for (const box of document.querySelectorAll(".box")) box.remove();
  return current.signal;
}

function showError(message) {
  statusLine.textContent = "";
  error.textContent = message;
  error.hidden = false;
}

// Returns whether a file is small enough, and says so if it is not.
function checkSize(file) {
  if (file.size <= uploadBytes) return true;
  showError(`${file.name || "The photograph"} has ${formatMegabytes(file.size)}; the limit is ${formatMegabytes(uploadBytes)}.`);
  return false;
}

// Shows a photograph as the server sees it: a browser does not turn every file upright, and cannot show every format.
async function showPicture(image, { picture }) {
  URL.revokeObjectURL(image.src); // of the file, if that was shown
  image.src = `data:image/jpeg;base64,${picture}`;
  await image.decode().catch(() => {}); // another photograph took its place
}

// Boxes may reach beyond the photograph; they are shown up to its edges.
function placeBox(element, box, { width_px: width, height_px: height }) {
  const [left, right] = [box.left, box.right].map((x) => (100 * Math.min(Math.max(x, 0), width)) / width);
  const [top, bottom] = [box.top, box.bottom].map((y) => (100 * Math.min(Math.max(y, 0), height)) / height);
  element.className = "box";
  Object.assign(element.style, {
    left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`,
  });
}

const drops = [...document.querySelectorAll(".drop")];
let place = null; // what a file that is being chosen or taken is for

for (const input of [find("#file"), find("#camera")]) {
  input.addEventListener("change", () => {
    if (input.files.length) takeFiles([...input.files], place);
    input.value = ""; // so that the same file can be chosen again
  });
}
for (const button of document.querySelectorAll(".choose")) {
  button.addEventListener("click", () => {
    place = button.closest(".drop");
    find("#file").click();
  });
}
find("#access")?.addEventListener("submit", (event) => event.preventDefault());

// On the whole page: elsewhere, a browser would leave the page to show a dropped file.
addEventListener("dragover", (event) => {
  event.preventDefault();
  markDrop(findDrop(event));
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) markDrop(null);
});
addEventListener("drop", (event) => {
  event.preventDefault();
  markDrop(null);
  takeFiles([...event.dataTransfer.files], findDrop(event));
});
addEventListener("paste", (event) => {
  if (event.target !== find("#token")) takeFiles([...event.clipboardData.files], null);
});

// Where there is only one, it is for what is dropped anywhere.
function findDrop({ target }) {
  return drops.length === 1 ? drops[0] : (target.closest?.(".drop") ?? null);
}

function markDrop(active) {
  for (const drop of drops) drop.classList.toggle("active", drop === active);
}

const camera = find("dialog");
const video = find("video");

for (const button of document.querySelectorAll(".open-camera")) button.addEventListener("click", openCamera);

async function openCamera({ currentTarget: button }) {
  place = button.closest(".drop");
  button.disabled = true; // a second click would start a second stream
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
    camera.showModal();
  } catch {
    find("#camera").click(); // without HTTPS or a camera: what the operating system offers
  }
  button.disabled = false;
}

video.addEventListener("loadeddata", () => { find("#capture").disabled = false; });
find("#capture").addEventListener("click", () => {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => blob && takeFiles([blob], place), "image/jpeg", 0.92);
  camera.close();
});
find("#cancel").addEventListener("click", () => camera.close());
camera.addEventListener("close", () => {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
  find("#capture").disabled = true;
});
