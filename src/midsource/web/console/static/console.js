// Says when what is shown has stopped being fresh: the last refresh failed, and the page keeps the figures it had.
"use strict";
const notice = document.getElementById("stale");
for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
  document.body.addEventListener(name, () => { notice.hidden = false; });
}
document.body.addEventListener("htmx:afterSwap", () => { notice.hidden = true; });
