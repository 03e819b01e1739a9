// Says when what is shown has stopped being fresh: the last refresh failed, and the page keeps the figures it had.
// Keeps the place of whoever goes by keyboard: a refresh replaces the link or button that has the focus, so its successor gets it, known
// by its id or else by where it leads.
"use strict";
const notice = document.getElementById("stale");
for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
  document.body.addEventListener(name, () => { notice.hidden = false; });
}
const CONTROLS = "#live a[href], #live button";
const known = (e) => e.id || e.getAttribute("href") || e.form?.getAttribute("action");
let focused = null;
document.body.addEventListener("htmx:beforeSwap", () => {
  const control = document.activeElement.closest(CONTROLS);
  focused = control && known(control);
});
document.body.addEventListener("htmx:afterSwap", () => {
  notice.hidden = true;
  const controls = focused ? [...document.querySelectorAll(CONTROLS)] : [];
  controls.find((control) => known(control) === focused)?.focus({ preventScroll: true });
});
