const showsTraining = document.body.dataset.showsTraining === "true";
const makePath = (whole) => `predict?top=5&heat_map=true&nearest=${showsTraining}&whole=${whole}&picture=true`;
const summarize = (face) => (face.known ? formatName(face.candidates[0].name) : "unknown");

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
  row.append(head);
  row.insertCell().append(makeBar(probability));
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
