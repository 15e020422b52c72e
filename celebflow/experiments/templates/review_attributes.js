// A review of labels of attributes: a suspect label stays, is flipped, or is left blank.

const about = {
  actions: ["keep", "flip", "blank", "skip"],
  changing: ["flip", "blank"], // what waits until it is applied
  done: { keep: "Kept", flip: "To flip", blank: "To leave blank", skip: "Skipped" },
  leftOut: "whose photographs or labels have changed since",
  name: (item) => `${formatName(item.attribute)}, ${item.path}`,
  isDone: (item) => item.done,
  isOffered: () => true,
  summarize: (count) => `Flipped ${count("flip")}, left blank ${count("blank")}.`,

  start() {},

  fill(item) {
    find("#question").replaceChildren(makeName(item.attribute), "?");
    fillSide("#given", "labeled ", item.given, item.of_given);
    fillSide("#likelier", "looks like ", item.likelier, item.of_likelier);
    find("#keep span").replaceChildren("Right as it is: ", make("b", item.given));
    find("#flip span").replaceChildren("Flip to ", make("b", item.likelier));
  },

  disable() {},

  // Returns what was decided, as texts and elements.
  describe(item) {
    if (item.done) return [item.action === "flip" ? `Flipped to ${item.likelier}.` : "Left blank."];
    return item.action ? [`${about.done[item.action]}.`] : [];
  },

  // Returns the label and what becomes of it.
  describeChange(item) {
    const label = [make("bdi", item.path), ", ", make("b", makeName(item.attribute)), `: ${item.given}`];
    if (item.action === "flip") return [...label, " → ", make("b", item.likelier)];
    return item.action === "blank" ? [...label, " → ", make("b", "blank")] : label;
  },

  choose: (action) => decide(action),

  keys: {
    f: () => find("#flip").click(),
    b: () => find("#blank").click(),
  },
};
