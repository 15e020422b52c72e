// "bjorn" finds Björn.
const fold = (text) => text.replaceAll("_", " ").normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

const search = find("#search");
const person = find("#person"); // not on every page, and without examples, neither is the next
const kind = find("#kind");

// Which of the matches are shown is up to limit.js.
function filter() {
  const split = find("input[name=split]:checked").value;
  const wanted = fold(search.value.trim());
  const isFound = (name) => fold(name).includes(wanted);

  for (const element of findAll(".figure[data-split], tbody[data-split]")) {
    element.hidden = element.dataset.split !== split;
  }
  const rows = findAll("tr[data-person]");
  for (const row of rows) row.hidden = ![row.dataset.person, row.dataset.given ?? ""].some(isFound);
  const counted = find("#person-count");
  const inSplit = findAll(`tbody[data-split="${split}"] tr`, counted.closest("section"));
  counted.textContent = count(inSplit, `${counted.dataset.noun}, ${split}`);
  if (kind) filterExamples(split, isFound);
  limit();
}

function filterExamples(split, isFound) {
  const tiles = findAll("#examples .tile");
  for (const tile of tiles) {
    const names = [tile.dataset.actual, tile.dataset.predicted];
    tile.hidden =
      tile.dataset.split !== split ||
      (kind.value && tile.dataset.kind !== kind.value) ||
      (person?.value && !names.includes(person.value)) ||
      !names.some(isFound);
  }
  find("#example-count").textContent = count(tiles.filter((tile) => tile.dataset.split === split), `${find("#example-count").dataset.noun}, ${split}`);
}

const count = (elements, noun) => `${elements.filter((each) => !each.hidden).length} of ${elements.length} ${noun}`;

search.addEventListener("input", filter);
for (const control of findAll("input[name=split], select")) control.addEventListener("change", filter);
filter();

for (const button of findAll(".pick")) {
  button.addEventListener("click", () => {
    person.value = button.closest("tr").dataset.person;
    kind.value = ""; // an earlier filter could hide the examples
    filter();
    find("#examples").scrollIntoView();
  });
}

const collator = new Intl.Collator(undefined, { numeric: true });

for (const button of findAll("thead button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th");
    const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const isName = header.cellIndex === 0;
    const table = button.closest("table");
    for (const other of findAll("th[aria-sort]", table)) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    for (const body of findAll("tbody[data-split]", table)) {
      const value = (row) => row.cells[header.cellIndex].dataset.value;
      const sorted = [...body.rows].sort((a, b) => {
        // Missing values come last in both directions.
        if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
        return direction * (isName ? collator.compare(value(a), value(b)) : value(a) - value(b));
      });
      body.append(...sorted);
    }
    limit();
  });
}
