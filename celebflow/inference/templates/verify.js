const slots = drops; // one for each photograph, in their order
const files = new Map(); // the file in each slot that has one

function takeFiles(given, slot) {
  if (given.length === 0 || given.length > slots.length) {
    resetResult();
    showError(given.length ? "Send two photographs at most." : "There is no file in what you dropped or pasted.");
    return;
  }
  const free = () => slots.find((each) => !files.has(each)) ?? document.activeElement.closest(".slot") ?? slots.at(-1);
  const targets = given.length === slots.length ? slots : [slot ?? free()];
  resetResult();
  if (!given.every(checkSize)) return;
  targets.forEach((target, index) => fill(target, given[index]));
  compare();
}

function fill(slot, file) {
  files.set(slot, file);
  const image = find("img", slot);
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(file);
  find(".photograph", slot).hidden = false;
  find(".invitation", slot).hidden = true;
}

async function compare(whole = false) {
  const signal = resetResult();
  const missing = slots.find((slot) => !files.has(slot));
  if (missing) {
    statusLine.textContent = `Now the ${missing.dataset.name} photograph.`;
    return;
  }
  statusLine.textContent = "Comparing…";
  const photographs = Object.fromEntries(slots.map((slot) => [slot.dataset.name, files.get(slot)]));
  const content = await postPhotographs(`verify?whole=${whole}&picture=true`, photographs, signal);
  if (!content || signal.aborted) return;
  await Promise.all(slots.map((slot) => showPicture(find("img", slot), content[slot.dataset.name])));
  if (!signal.aborted) showComparison(content);
}

function showComparison(content) {
  const without = [];
  for (const slot of slots) {
    const { name } = slot.dataset;
    if (content[name].compared === "nothing") without.push(name);
    if (content[name].box) find(".photograph", slot).append(makeBox(content[name]));
  }
  result.className = content.answer;
  const { log_odds: logOdds, false_match_rate: falseMatches, false_non_match_rate: falseNonMatches } = content;
  const answer = {
    same: () => `The same person: ${formatProbability(logOdds)}`,
    different: () => `Two different people: ${formatProbability(-logOdds)}`,
    "no face found": () => `No face found in the ${without.join(" and the ")} photograph`,
  }[content.answer]();
  find("#answer").textContent = answer;
  find("#probability").textContent =
    logOdds === null
      ? "So nothing is compared."
      : `The probability that both show the same person is ${formatProbability(logOdds)}, if that and the opposite were equally likely before.`;
  find("#errors").textContent =
    `In validation, ${formatRate(falseMatches)} of the pairs of two people were taken for one person, and ` +
    `${formatRate(falseNonMatches)} of the pairs of the same person for two.`;
  find("#errors").hidden = logOdds === null;
  find("#no-face").hidden = logOdds !== null;
  find("#whole").onclick = () => compare(true);
  result.hidden = false;
  statusLine.textContent = answer;
  result.scrollIntoView({ block: "nearest" });
}

// In percent, with as many digits as tell it apart from 0 and 1, as the command line writes it.
function formatProbability(logOdds) {
  const text = writePercent(100 / (1 + Math.exp(-logOdds)), [0, 100]);
  if (text !== null) return `${text}%`;
  return logOdds > 0 ? "more than 99.9999%" : "less than 0.0001%";
}

const formatRate = (rate) => `${(100 * rate).toFixed(1)}%`;

function makeBox(photograph) {
  const element = document.createElement("div");
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", "The compared face");
  placeBox(element, photograph.box, photograph);
  return element;
}
