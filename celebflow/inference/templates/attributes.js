const makePath = (whole) => `attributes?whole=${whole}&picture=true`;
const isSure = (attribute) => attribute.answer === "yes" && !attribute.uncertain;
const summarize = (face) => `${face.attributes.filter(isSure).length} of ${face.attributes.length} attributes for sure`;

function makeFaceEntry(face, number) {
  const entry = find("#face").content.firstElementChild.cloneNode(true);
  const sure = face.attributes.filter(isSure);
  const names = sure.flatMap(({ name }, index) => [index ? ", " : "", makeName(name)]);
  find("h2", entry).append(number ? `${number}. ` : "", ...(names.length ? names : ["No attribute for sure"]));
  const isOther = (attribute) => attribute.answer === "no" && !attribute.uncertain;
  const others = face.attributes.filter(isOther);
  const found = face.attributes.filter((attribute) => !isOther(attribute));
  find(".found tbody", entry).append(...found.map(makeAttributeRow));
  find(".others tbody", entry).append(...others.map(makeAttributeRow));
  find("summary", entry).textContent = `No: ${others.length} of ${face.attributes.length} attributes`;
  find("details", entry).hidden = !others.length;
  find("details", entry).open = !number; // of several faces, each would take a screen
  return entry;
}

function makeAttributeRow({ name, probability, threshold, answer, uncertain }) {
  const row = document.createElement("tr");
  row.className = uncertain ? "uncertain" : answer;
  const head = document.createElement("th");
  head.scope = "row";
  head.append(makeName(name));
  const bar = makeBar(probability);
  const mark = document.createElement("span");
  mark.className = "threshold";
  mark.style.left = `${100 * threshold}%`;
  mark.title = `yes from ${formatPercent(threshold)} on`;
  bar.append(mark);
  row.append(head);
  row.insertCell().append(bar);
  row.insertCell().textContent = formatPercent(probability);
  row.insertCell().textContent = uncertain ? `${answer} ?` : answer;
  return row;
}
