// What the pages share that take one photograph and show what is predicted of the faces in it. A page's own script
// defines makePath(whole): where a photograph is sent; makeFaceEntry(face, number): the entry of a face in the
// list, with number 0 for a face that is alone; and summarize(face): a few words about it.

const formatPercent = (fraction) => `${writePercent(100 * fraction, [100]) ?? "100.000000"}\u00a0%`;

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
  const content = await postPhotographs(makePath(whole), { photograph: file }, signal);
  if (content && !signal.aborted) await showPrediction(file, content, signal);
}

function reset() {
  faceList.replaceChildren();
  photograph.removeAttribute("src");
  return resetResult();
}

async function showPrediction(file, content, signal) {
  await showPicture(photograph, content);
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
  const texts = content.faces.map(summarize);
  statusLine.textContent = `${texts.length === 1 ? "Prediction" : `${texts.length} faces`}: ${texts.join(", ")}.`;
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

// Returns a bar that is filled up to a probability.
function makeBar(probability) {
  const bar = document.createElement("div");
  bar.className = "bar";
  const value = document.createElement("div");
  value.style.width = `${100 * probability}%`;
  bar.append(value);
  return bar;
}
