"use strict";

const find = (selector, root = document) => root.querySelector(selector);
const spell = (name) => name.replaceAll("_", " ");
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const uploadBytes = Number(document.body.dataset.uploadBytes);
const showsTraining = document.body.dataset.showsTraining === "true";

const drop = find("#drop");
const answer = find("#answer");
const photograph = find("#photograph");
const list = find("#faces");
const problem = find("#problem");
const statusLine = find("#status");
let asking = new AbortController(); // the request that is under way

async function ask(file) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  clear();
  if (file.size > uploadBytes) {
    complain(`${file.name || "The photograph"} has ${(file.size / 1e6).toFixed(1)} MB; ${uploadBytes / 1e6} MB are the most.`);
    return;
  }
  statusLine.textContent = "Looking…";
  const form = new FormData();
  form.append("photograph", file, "photograph"); // its own name is nobody's business
  try {
    const response = await fetch(`predict?top=5&heat_map=true&nearest=${showsTraining}`, {
      method: "POST",
      body: form,
      // No token has other signs, and a header must not.
      headers: find("#token") ? { Authorization: `Bearer ${find("#token").value.replace(/[^!-~]/g, "?")}` } : {},
      signal,
    });
    const content = await response.json();
    if (response.ok) await show(file, content, signal);
    else complain(content.message);
    if (response.status === 401) find("#token")?.focus();
  } catch {
    if (!signal.aborted) complain("The server does not answer. Is it still running?"); // else another one is asked about
  }
}

function clear() {
  answer.hidden = problem.hidden = true;
  statusLine.textContent = problem.textContent = "";
  list.replaceChildren();
  for (const box of document.querySelectorAll(".box")) box.remove();
  if (photograph.src) URL.revokeObjectURL(photograph.src);
  photograph.removeAttribute("src");
}

function complain(message) {
  statusLine.textContent = "";
  problem.textContent = message;
  problem.hidden = false;
}

async function show(file, content, signal) {
  photograph.src = URL.createObjectURL(file);
  await photograph.decode().catch(() => {}); // what the server can read and the browser cannot
  if (signal.aborted) return;
  content.faces.forEach((face, index) => {
    const entry = describe(face, content.faces.length > 1 ? index + 1 : 0);
    list.append(entry);
    if (!face.box) return;
    const box = frame(face.box, content, index + 1);
    photograph.parentElement.append(box);
    const mark = (on) => [box, entry].forEach((element) => element.classList.toggle("current", on));
    for (const element of [box, entry]) {
      element.addEventListener("pointerenter", () => mark(true));
      element.addEventListener("pointerleave", () => mark(false));
    }
    box.addEventListener("click", () => entry.scrollIntoView({ block: "nearest", behavior: "smooth" }));
  });
  answer.hidden = false;
  const names = content.faces.map((face) => (face.known ? spell(face.candidates[0].name) : "unknown"));
  statusLine.textContent = `${names.length === 1 ? "One answer" : `${names.length} faces`}: ${names.join(", ")}.`;
}

// A box may reach beyond the photograph.
function frame(box, { width_px: width, height_px: height }, number) {
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

function describe(face, number) {
  const entry = find("#face").content.firstElementChild.cloneNode(true);
  const [first] = face.candidates;
  entry.classList.toggle("unknown", !face.known);
  const name = document.createElement("bdi");
  name.textContent = face.known ? spell(first.name) : "Unknown";
  find("h2", entry).append(number ? `${number}. ` : "", name);
  find(".verdict", entry).textContent = face.known ? "" : "None of these is probable enough.";
  find("tbody", entry).append(...face.candidates.map(draw));
  find(".seen", entry).src = `data:image/jpeg;base64,${face.seen}`;
  find(".heat", entry).src = `data:image/jpeg;base64,${face.heat_map}`;
  if (face.nearest) find(".nearest ul", entry).append(...face.nearest.map(resemble));
  else find(".nearest", entry).remove();
  return entry;
}

function draw({ name, probability }) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  const label = document.createElement("bdi");
  label.textContent = spell(name);
  head.append(label);
  const bar = document.createElement("div");
  bar.className = "bar";
  const value = document.createElement("div");
  value.style.width = `${100 * probability}%`;
  bar.append(value);
  row.append(head);
  row.insertCell().append(bar);
  row.insertCell().textContent = percent(probability);
  return row;
}

function resemble({ person, thumbnail }) {
  const item = document.createElement("li");
  const image = document.createElement("img");
  image.src = `data:image/jpeg;base64,${thumbnail}`;
  image.alt = "";
  const name = document.createElement("bdi");
  name.textContent = spell(person);
  item.append(image, name);
  return item;
}

for (const input of [find("#file"), find("#camera")]) {
  input.addEventListener("change", () => {
    if (input.files.length) ask(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
}
find("#choose").addEventListener("click", () => find("#file").click());
find("#access")?.addEventListener("submit", (event) => event.preventDefault());

// Anywhere on the page, or the browser would leave it to show the file.
addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer);
});
addEventListener("paste", (event) => {
  if (event.target === find("#token")) return;
  take(event.clipboardData);
});

function take(transfer) {
  if (transfer.files.length === 1) ask(transfer.files[0]);
  else {
    asking.abort();
    clear();
    complain(transfer.files.length ? "One photograph at a time, please." : "That holds no file.");
  }
}

const camera = find("dialog");
const video = find("video");

find("#take").addEventListener("click", async ({ currentTarget: button }) => {
  button.disabled = true; // a second click would start a second stream
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
    camera.showModal();
  } catch {
    find("#camera").click(); // without a secure address or a camera here, what the system offers
  }
  button.disabled = false;
});
video.addEventListener("loadeddata", () => { find("#shoot").disabled = false; });
find("#shoot").addEventListener("click", () => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => blob && ask(blob), "image/jpeg", 0.92);
  camera.close();
});
find("#cancel").addEventListener("click", () => camera.close());
camera.addEventListener("close", () => {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
  find("#shoot").disabled = true;
});
