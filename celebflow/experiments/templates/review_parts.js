// What the scripts of both reviews share.

const find = (selector, root = document) => root.querySelector(selector);
const formatPercent = (fraction) => `${(100 * fraction).toFixed(1)}\u00a0%`;

// Returns an element with texts and elements in it; names are never markup.
function make(tag, ...content) {
  const element = document.createElement(tag);
  element.append(...content);
  return element;
}

// Says beside a picture which label it has, and how probable that is.
function fillSide(selector, text, name, probability) {
  find(`${selector} figcaption`).replaceChildren(text, make("b", makeName(name)), `, ${formatPercent(probability)}`);
}
