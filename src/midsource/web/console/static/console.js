// Says when what is shown has stopped being fresh: the last refresh failed, and the page keeps the figures it had.
// Keeps the place of whoever goes by keyboard: a refresh replaces the link that has the focus, so its successor gets it.
"use strict";
const notice = document.getElementById("stale");
for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
  document.body.addEventListener(name, () => { notice.hidden = false; });
}
let focused = null;
document.body.addEventListener("htmx:beforeSwap", () => {
  const link = document.activeElement.closest("#live a[href]");
  focused = link && link.getAttribute("href");
});
document.body.addEventListener("htmx:afterSwap", () => {
  notice.hidden = true;
  const links = focused === null ? [] : [...document.querySelectorAll("#live a[href]")];
  links.find((link) => link.getAttribute("href") === focused)?.focus({ preventScroll: true });
});
