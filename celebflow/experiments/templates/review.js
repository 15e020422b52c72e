// The page shows one suspect at a time, or the list of changes. It sends what was decided, and shows what the server
// then says of the rows that it has changed. What is particular to people or attributes is in `about`, which another
// script defines before.

const one = find("#one");
const changes = find("#changes");
const error = find("#error");
const help = find("#help");
const PREFETCHED = 3;

let items = []; // by row
let listed = []; // those of the table, in its order
let showsFaces = false;
let position = 0; // of the suspect that is shown, among those listed
let busy = false; // while a request is under way, a key would decide about what is shown no longer
const prefetched = new Map();

const isOpen = (item) => !item.action;
const waits = (item) => about.changing.includes(item.action) && !about.isDone(item);
const picture = (item, kind) => `pictures/${item.row}/${kind}`;

// Sends a request, and returns what the server answered, or null after it has shown the reason.
async function ask(path, body) {
  error.hidden = true;
  busy = true;
  try {
    const options = body && { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
    const response = await fetch(path, options);
    const content = await response.json();
    if (response.ok) return content;
    showError(content.message);
  } catch {
    showError("The server does not respond. Is `celebflow review` still running?");
  } finally {
    busy = false;
  }
  return null;
}

function showError(message) {
  error.textContent = message;
  error.hidden = false;
}

function say(text) {
  find("#status").textContent = text;
}

function take(content) {
  for (const item of content.items) items[item.row] = item;
  listed = items.filter((item) => item.listed);
  const decided = listed.filter((item) => !isOpen(item)).length;
  find("#progress").max = listed.length || 1;
  find("#progress").value = decided;
  find("#count").textContent = `${decided} of ${listed.length} decided`;
  const waiting = items.filter(waits).length;
  find("#show-changes span").textContent = waiting ? `Changes (${waiting} to do)` : "Changes";
  find("#commands").hidden = !content.commands.length;
  find("#commands pre").textContent = content.commands.join("\n");
  if (content.problems.length) showError(content.problems.join("\n"));
}

// Shows a picture, or nothing in its place where there is none (any more).
function setPicture(image, address) {
  image.onerror = () => { image.hidden = image.id !== "photograph"; };
  image.hidden = !address;
  if (!address) image.removeAttribute("src");
  else if (image.getAttribute("src") !== address) image.src = address;
}

// Shows the suspect at the position.
function showOne() {
  one.hidden = false;
  changes.hidden = true;
  const item = listed[position];
  setPicture(find("#photograph"), picture(item, "photograph"));
  about.fill(item);
  setPicture(find("#given img"), item.nearest[0] && picture(item, "of_given"));
  setPicture(find("#likelier img"), item.nearest[1] && picture(item, "of_likelier"));
  find("#seen").hidden = !showsFaces;
  setPicture(find("#seen img"), showsFaces && picture(item, "seen"));
  for (const action of about.actions) {
    find(`#${action}`).classList.toggle("chosen", item.action === action && about.isOffered(item));
    find(`#${action}`).disabled = about.isDone(item);
  }
  about.disable(item);
  find("#decision").hidden = isOpen(item);
  find("#decision").replaceChildren(...about.describe(item));
  find("#path").textContent = `${position + 1} of ${listed.length}: ${item.path}`;
  for (const next of listed.slice(position + 1, position + 1 + PREFETCHED)) prefetch(next);
}

// Fetches the pictures of a suspect before it is shown. The page keeps the last ones.
function prefetch(item) {
  if (prefetched.has(item.row)) return;
  const kinds = ["photograph", ...(showsFaces ? ["seen"] : [])];
  if (item.nearest[0]) kinds.push("of_given");
  if (item.nearest[1]) kinds.push("of_likelier");
  prefetched.set(item.row, kinds.map((kind) => Object.assign(new Image(), { src: picture(item, kind) })));
  if (prefetched.size > 4 * PREFETCHED) prefetched.delete(prefetched.keys().next().value);
}

// Shows the list of changes; after the last decision, it shows by itself.
function showChanges() {
  one.hidden = true;
  changes.hidden = false;
  const byTime = items.filter((item) => item.action);
  fillGroup("#waiting", "To do", byTime.filter(waits));
  fillGroup("#done", "Done", byTime.filter(about.isDone));
  fillGroup("#kept", "Kept as right", byTime.filter((item) => item.action === "keep"));
  fillGroup("#skipped", "Skipped", byTime.filter((item) => item.action === "skip"));
  find("#nothing").hidden = byTime.length > 0;
  find("#nothing").textContent = listed.length ? "Nothing was decided yet." : "There is nothing to look at.";
  const count = (action) => byTime.filter((item) => waits(item) && item.action === action).length;
  const parts = about.changing.map((action) => [action, count(action)]).filter(([, number]) => number);
  find("#apply span").textContent = `Apply: ${parts.map((part) => part.join(" ")).join(", ")}`;
  find("#back").hidden = !listed.length;
}

function fillGroup(selector, title, members) {
  const group = find(selector);
  group.hidden = !members.length;
  find("h3", group).textContent = `${title} (${members.length})`;
  find("ul", group).replaceChildren(...members.map(makeEntry));
}

function makeEntry(item) {
  const entry = find("#entry").content.cloneNode(true);
  const pick = find(".pick", entry);
  setPicture(find("img", pick), picture(item, "small"));
  find("span", pick).append(...about.describeChange(item));
  pick.disabled = !item.listed;
  pick.addEventListener("click", () => {
    position = listed.indexOf(item);
    showOne();
  });
  const undo = find(".undo", entry);
  undo.setAttribute("aria-label", `Undo: ${about.name(item)}`);
  undo.addEventListener("click", () => takeBack(item.row));
  return entry;
}

// Goes to the next suspect about which nothing was decided, or to the list of changes after the last one.
function advance() {
  const order = [...listed.slice(position + 1), ...listed.slice(0, position + 1)];
  const next = order.find(isOpen);
  if (!next) {
    showChanges();
    find("#changes-title").focus();
    return;
  }
  position = listed.indexOf(next);
  showOne();
}

// Sends a decision about the suspect that is shown, with what else the server must know of it.
async function decide(action, more = {}, where = "") {
  if (busy || one.hidden) return;
  const item = listed[position];
  const content = await ask("decisions", { row: item.row, action, ...more });
  if (!content) return;
  take(content);
  say(`${about.done[action]}${where}: ${about.name(item)}`);
  advance();
}

// Takes the decision about a row back, or the last one; then its suspect is shown, unless the list of changes was used.
async function takeBack(row = null) {
  if (busy) return;
  const content = await ask("undo", { row });
  if (!content) return;
  take(content);
  const [item] = content.items;
  say(`Undone: ${about.name(item)}`);
  if (row !== null || !item.listed) {
    showChanges();
    find("#changes-title").focus(); // the button is gone
    return;
  }
  position = listed.findIndex((each) => each.row === item.row);
  showOne();
}

async function apply() {
  const rows = items.filter(waits).map((item) => item.row);
  if (busy || changes.hidden || !rows.length) return;
  say("Applying…");
  const content = await ask("apply", { rows });
  if (!content) return;
  take(content);
  const count = (action) => content.items.filter((item) => item.action === action).length;
  say(about.summarize(count));
  showChanges();
  find("#changes-title").focus();
}

function toggleChanges() {
  if (changes.hidden) {
    showChanges();
    find("#changes-title").focus();
  } else if (listed.length) {
    showOne();
  }
}

function step(by) {
  if (one.hidden || !listed.length) return;
  position = (position + by + listed.length) % listed.length;
  showOne();
}

for (const action of about.actions) find(`#${action}`).addEventListener("click", () => about.choose(action));
find("#undo").addEventListener("click", () => takeBack());
find("#previous").addEventListener("click", () => step(-1));
find("#next").addEventListener("click", () => step(1));
find("#apply").addEventListener("click", apply);
for (const id of ["#show-changes", "#back"]) find(id).addEventListener("click", toggleChanges);
find("#show-help").addEventListener("click", () => help.showModal());
find("#close-help").addEventListener("click", () => help.close());

const KEYS = {
  ...about.keys,
  k: () => find("#keep").click(),
  s: () => find("#skip").click(),
  u: () => takeBack(),
  c: toggleChanges,
  a: apply,
  "?": () => help.showModal(),
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
};

addEventListener("keydown", (event) => {
  if (help.open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target instanceof HTMLInputElement) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!Object.hasOwn(KEYS, key)) return;
  event.preventDefault(); // O would be written into the field
  if (event.repeat && !key.startsWith("Arrow")) return; // a key that is held decides once
  KEYS[key]();
});

async function start() {
  const content = await ask("state");
  if (!content) return;
  about.start(content);
  showsFaces = content.shows_faces;
  take(content);
  if (content.left_out) {
    find("#left-out").hidden = false;
    find("#left-out").textContent = `Left out: ${content.left_out}, ${about.leftOut}.`;
  }
  position = listed.length - 1; // so that the first one is the next
  advance();
}
start();
