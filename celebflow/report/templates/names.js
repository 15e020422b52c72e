"use strict";

// How pages write the names of people: as text, with spaces in the place of underscores.

const formatName = (name) => name.replaceAll("_", " ");

// Names may be written from right to left.
function makeName(name) {
  const element = document.createElement("bdi");
  element.textContent = formatName(name);
  return element;
}
