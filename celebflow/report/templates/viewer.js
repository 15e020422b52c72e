"use strict";

const find = (selector, root = document) => root.querySelector(selector);
const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

const viewer = find("dialog");
const stage = find(".stage");
const size = find(".size");
let series = [];
let position = 0;

function show(index) {
  position = (index + series.length) % series.length;
  stage.replaceChildren(...[...series[position].childNodes].map((node) => node.cloneNode(true)));
  stage.scrollTo(0, 0);
  find("output", viewer).textContent = `${position + 1} of ${series.length}`;
}

function setFullSize(full) {
  stage.classList.toggle("full", full);
  size.setAttribute("aria-pressed", full);
}

for (const opener of findAll(".opener")) {
  opener.addEventListener("click", () => {
    series = findAll(".opener:not([hidden])", opener.closest("[data-series]"));
    size.hidden = !opener.classList.contains("figure");
    setFullSize(false);
    show(series.indexOf(opener));
    viewer.showModal();
  });
}
for (const button of findAll("[data-step]", viewer)) {
  button.addEventListener("click", () => show(position + Number(button.dataset.step)));
}
size.addEventListener("click", () => setFullSize(!stage.classList.contains("full")));
find(".close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close(); // the backdrop
});
viewer.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || stage.classList.contains("full")) return; // at full size, arrows scroll
  event.preventDefault();
  show(position + step);
});
viewer.addEventListener("close", () => {
  series[position].classList.remove("beyond"); // it may be one that limit.js hides
  series[position].focus(); // where the viewer has moved to
});
