const formatName = (name) => name.replaceAll("_", " ");
const formatPercent = (fraction) => `${writePercent(100 * fraction, [100]) ?? "100.000000"}\u00a0%`;
const showsTraining = document.body.dataset.showsTraining === "true";

const photograph = find("#photograph");
const faceList = find("#faces");

function takeFiles(files) {
  if (files.length === 1) {
    predict(files[0]);
    return;
  }
  reset();
  showError(files.length ? "Send one photograph at a time." : "There is no file in what you dropped or pasted.");
}

async function predict(file, whole = false) {
  const signal = reset();
  if (!checkSize(file)) return;
  statusLine.textContent = "Predicting…";
  const path = `predict?top=5&heat_map=true&nearest=${showsTraining}&whole=${whole}`;
  const content = await postPhotographs(path, { photograph: file }, signal);
  if (content && !signal.aborted) await showPrediction(file, content, signal);
}

function reset() {
  faceList.replaceChildren();
  if (photograph.src) URL.revokeObjectURL(photograph.src);
  photograph.removeAttribute("src");
  return resetResult();
}

async function showPrediction(file, content, signal) {
  photograph.src = URL.createObjectURL(file);
  await photograph.decode().catch(() => {}); // the server may read what the browser cannot
  if (signal.aborted) return;
  content.faces.forEach((face, index) => {
    const entry = makeFaceEntry(face, content.faces.length > 1 ? index + 1 : 0);
    faceList.append(entry);
    if (!face.box) return;
    const box = makeBox(face, content, index + 1);
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

function makeBox(face, content, number) {
  const element = document.createElement("button");
  element.type = "button";
  element.setAttribute("aria-label", `Face ${number}`);
  placeBox(element, face.box, content);
  const label = document.createElement("span");
  label.textContent = number;
  element.append(label);
  return element;
}

function makeFaceEntry(face, number) {
  const entry = find("#face").content.firstElementChild.cloneNode(true);
  entry.classList.toggle("unknown", !face.known);
  const [first] = face.candidates;
  const name = face.known ? [makeName(first.name), ...makeTags(first)] : ["Unknown"];
  find("h2", entry).append(number ? `${number}. ` : "", ...name);
  find(".verdict", entry).textContent = face.known ? "" : "It resembles none of these people enough.";
  find("tbody", entry).append(...face.candidates.map(makeCandidateRow));
  find(".seen", entry).src = `data:image/jpeg;base64,${face.seen}`;
  if (face.heat_map) find(".heat", entry).src = `data:image/jpeg;base64,${face.heat_map}`;
  else {
    find(".heat", entry).remove();
    find("figcaption", entry).textContent = "What the network saw.";
  }
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

// What an answer about an enrolled person says of itself.
function makeTags({ enrolled }) {
  if (!enrolled) return [];
  const tag = document.createElement("span");
  tag.className = "tag";
  tag.textContent = "enrolled";
  return [" ", tag];
}

function makeCandidateRow(candidate) {
  const { name, probability } = candidate;
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.append(makeName(name), ...makeTags(candidate));
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
