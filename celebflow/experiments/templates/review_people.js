// A review of the folders of people: a suspect stays, moves to somebody else, or is deleted.

let people = [];
const person = find("#person");

const about = {
  actions: ["keep", "move", "delete", "skip"],
  changing: ["move", "delete"], // what waits until it is applied
  done: { keep: "Kept", move: "To move", delete: "To delete", skip: "Skipped" },
  leftOut: "whose photographs have moved or changed since",
  name: (item) => item.path,
  isDone: (item) => Boolean(item.place),
  isOffered: (item) => item.action !== "move" || item.to === item.likelier,
  summarize: (count) => `Moved ${count("move")}, deleted ${count("delete")}.`,

  start(content) {
    people = content.people;
    find("#people").replaceChildren(...people.map((name) => new Option("", formatName(name))));
  },

  fill(item) {
    fillSide("#given", "in the folder of ", item.person, item.of_person);
    fillSide("#likelier", "looks like ", item.likelier, item.of_likelier);
    find("#keep span").replaceChildren("Keep: it is ", makeName(item.person));
    find("#move span").replaceChildren("Move to ", makeName(item.likelier));
    person.value = "";
  },

  disable(item) {
    find("#move").disabled ||= !people.includes(item.likelier);
  },

  // Returns what was decided, as texts and elements.
  describe(item) {
    if (item.place && item.action === "delete") return ["Deleted."];
    if (item.place) return ["Moved to ", makeName(item.to), "."];
    if (item.action === "move") return ["To move to ", makeName(item.to), "."];
    return item.action ? [`${about.done[item.action]}.`] : [];
  },

  // Returns from where to where a photograph moves, and says if its name was taken there.
  describeChange(item) {
    const path = make("bdi", item.path);
    if (item.action === "delete") return [path, item.place ? " was deleted" : " will be deleted"];
    if (item.action !== "move") return [path];
    const name = item.path.split("/").pop();
    const place = item.place.replace(/^data\//, "");
    const renamed = place && place.split("/").pop() !== name;
    const target = place || `${item.to}/${name}`;
    return [path, " → ", make("bdi", make("b", target)), renamed ? " (the name was taken)" : ""];
  },

  choose(action) {
    if (action === "move") moveTo(listed[position].likelier);
    else decide(action);
  },

  keys: {
    m: () => one.hidden || find("#move").click(),
    d: () => find("#delete").click(),
    o: () => one.hidden || person.focus(),
  },
};

function moveTo(name) {
  decide("move", { person: name }, ` to ${formatName(name)}`);
}

// Returns the person whose name was written, or whose name alone has what was written in it.
function findPerson(text) {
  const plain = (name) => formatName(name).trim().toLowerCase();
  if (!text.trim()) return undefined;
  const same = people.filter((name) => plain(name) === plain(text));
  const similar = same.length ? same : people.filter((name) => plain(name).includes(plain(text)));
  return similar.length === 1 ? similar[0] : undefined;
}

find("#other").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = findPerson(person.value);
  if (name === undefined) {
    showError(`“${person.value}” is not the name of exactly one person here.`);
    return;
  }
  person.blur();
  moveTo(name);
});
