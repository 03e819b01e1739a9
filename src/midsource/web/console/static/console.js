// Says when what is shown has stopped being fresh: the last refresh failed, and the page keeps the figures it had.
// Keeps the reader's place: a refresh replaces the link, button or summary that has the focus, so its successor gets it,
// known by its id, by where it leads, or by its words; and what was unfolded stays unfolded.
"use strict";
const notice = document.getElementById("stale");
for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
  document.body.addEventListener(name, () => { notice.hidden = false; });
}
const CONTROLS = "#live a[href], #live button, #live summary";
const known = (e) => e.id || e.getAttribute("href") || e.form?.getAttribute("action") || e.textContent;
const folds = () => [...document.querySelectorAll("#live details")].map((e) => [known(e.querySelector("summary")), e]);
let focused = null, unfolded = new Map();
document.body.addEventListener("htmx:beforeSwap", () => {
  const control = document.activeElement.closest(CONTROLS);
  focused = control && known(control);
  unfolded = new Map(folds().map(([name, e]) => [name, e.open]));
});
document.body.addEventListener("htmx:afterSwap", () => {
  notice.hidden = true;
  for (const [name, e] of folds()) e.open = unfolded.get(name) ?? e.open;
  const controls = focused ? [...document.querySelectorAll(CONTROLS)] : [];
  controls.find((control) => known(control) === focused)?.focus({ preventScroll: true });
});
