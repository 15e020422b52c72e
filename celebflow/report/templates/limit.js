
// A long list shows only its first items until someone asks for all of them: on a phone, the page would not end.
function limit() {
  for (const list of findAll("[data-first]")) {
    const items = findAll(".tile:not([hidden]), tbody:not([hidden]) > tr:not([hidden])", list);
    const first = Number(list.dataset.first);
    const isLong = !list.dataset.all && items.length > 1.5 * first; // for a few more, a button is not worth it
    items.forEach((item, index) => item.classList.toggle("beyond", isLong && index >= first));
    const more = find(".more", list);
    more.hidden = !isLong;
    more.textContent = `Show all ${items.length}`;
  }
}

for (const more of findAll(".more")) {
  more.addEventListener("click", () => {
    const list = more.closest("[data-first]");
    const next = find(".beyond", list);
    list.dataset.all = "true";
    limit();
    (next.matches("button") ? next : find("button", next))?.focus(); // the button that had the focus is gone
  });
}
limit();
