"""What a browser test asks a page: its faults as sentences, in light and dark, and where the keyboard leads.

A fault is a sentence, so that the assertion that finds one says all of it.
"""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

KEPT_CONTRAST = 4.5
"""WCAG 2 AA for text of ordinary size; large text keeps it too."""
MAX_STOPS = 200
"""Of one walk with the Tab key; the fullest page has 40."""

WITNESS = """
window.refusals = [];
document.addEventListener("securitypolicyviolation", (e) => refusals.push(`${e.effectiveDirective} refused ${e.blockedURI}`));
"""
"""Runs before a page's own scripts."""

_TEXTS = """
const isShown = (e) => e.checkVisibility() && e.getClientRects().length > 0;
const nameOf = (e) => (e.getAttribute("aria-label") || e.innerText || e.labels?.[0]?.innerText || "").trim();
"""

_FAULTS = f"""() => {{
  {_TEXTS}
  const faults = refusals.map((line) => `policy: ${{line}}`);
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) {{
    const widest = [...document.body.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5);
    faults.push(`${{wide}} px in a window of ${{innerWidth}}: ${{widest.slice(0, 3).map((e) => e.outerHTML.slice(0, 90))}}`);
  }}
  for (const e of document.querySelectorAll("main *")) {{
    if (isShown(e) && e.scrollWidth > e.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(e).overflowX)) {{
      faults.push(`scrolls sideways: ${{e.outerHTML.slice(0, 90)}}`);
    }}
  }}
  const headings = [...document.querySelectorAll("h1")].filter(isShown);
  if (headings.length !== 1) faults.push(`${{headings.length}} h1`);
  for (const image of document.images) {{
    if (!image.hasAttribute("alt")) faults.push(`no alt: ${{image.src}}`);
    if (!image.complete || !image.naturalWidth) faults.push(`not loaded: ${{image.src}}`);
  }}
  for (const e of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea")) {{
    if (isShown(e) && !nameOf(e)) faults.push(`nothing says where it leads: ${{e.outerHTML.slice(0, 90)}}`);
  }}
  for (const e of document.querySelectorAll("svg[role=img]")) if (!nameOf(e)) faults.push("a drawing without a name");
  for (const e of document.querySelectorAll("thead th, dt, h2, label, button, nav a, .pill")) {{
    const text = document.createTreeWalker(e, NodeFilter.SHOW_TEXT).nextNode();
    for (const word of (text && isShown(e) ? text.data.matchAll(/[^\\s-]+/g) : [])) {{
      const range = document.createRange();
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      if (range.getClientRects().length > 1) faults.push(`broken within a word: ${{word[0]}}`);
    }}
  }}
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) faults.push(`an id twice among ${{ids}}`);
  return faults;
}}"""

_PALE = f"""(kept) => {{
  {_TEXTS}
  const numbers = (colour) => {{
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return {{ r, g, b, a }};
  }};
  const light = ({{ r, g, b }}) => {{
    const [x, y, z] = [r, g, b].map((n) => n / 255).map((n) => (n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  }};
  const groundOf = (e) => {{
    for (; e; e = e.parentElement) {{
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.a === 1) return colour;
      if (colour.a > 0) throw new Error(`half transparent: ${{e.outerHTML.slice(0, 90)}}`);
    }}
    throw new Error("no ground");
  }};
  const pale = new Set();
  const check = (e, style, text) => {{
    const [low, high] = [light(numbers(style.color)), light(groundOf(e))].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < kept) pale.add(`${{contrast.toFixed(2)}}:1 ${{e.tagName}}.${{e.className}} “${{text.trim().slice(0, 30)}}”`);
  }};
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {{
    const e = texts.currentNode.parentElement;
    if (texts.currentNode.data.trim() && isShown(e)) check(e, getComputedStyle(e), texts.currentNode.data);
  }}
  for (const e of document.querySelectorAll("input")) check(e, getComputedStyle(e, "::placeholder"), e.placeholder);
  return [...pale];
}}"""

_STOP = f"""() => {{
  {_TEXTS}
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  window.stops ??= new Set();
  if (stops.has(e)) return null;
  stops.add(e);
  const box = e.getBoundingClientRect(), style = getComputedStyle(e);
  const seen = box.width > 0 && box.left >= 0 && box.top >= 0 && box.right <= innerWidth + 0.5 && box.bottom <= innerHeight + 0.5;
  const ringed = e.matches(":focus-visible") && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return {{ name: nameOf(e), seen, ringed, inMain: !!e.closest("main"), html: e.outerHTML.slice(0, 90) }};
}}"""

_MISSED = f"""() => {{
  {_TEXTS}
  const chosenByArrows = (e) => e.type === "radio" && !e.checked && document.querySelector(`input[name="${{e.name}}"]:checked`);
  const all = [...document.querySelectorAll("a[href], button, input, select")].filter((e) => isShown(e) && !chosenByArrows(e));
  return all.filter((e) => !stops.has(e)).map((e) => e.outerHTML.slice(0, 90));
}}"""


def faults(page: Page) -> list[str]:
    """Return what is wrong with the page as it stands, in light and in dark."""
    found: list[str] = page.evaluate(_FAULTS)
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        found += [f"{scheme}: {line}" for line in page.evaluate(_PALE, KEPT_CONTRAST)]
    return found


def tab(page: Page) -> dict[str, Any] | None:
    """Press Tab; return where that leads: its name, and whether it is in sight and ringed. None: out of the page, or round."""
    page.keyboard.press("Tab")
    stop: dict[str, Any] | None = page.evaluate(_STOP)
    return stop


def walk(page: Page) -> list[str]:
    """Walk through the page with the Tab key; return what is wrong on the way."""
    wrong = []
    for _ in range(MAX_STOPS):
        stop = tab(page)
        if stop is None:
            break
        wrong += [f"{fault}: {stop['html']}" for fault, fine in _judged(stop) if not fine]
    return wrong + [f"not reached: {line}" for line in page.evaluate(_MISSED)]


def _judged(stop: dict[str, Any]) -> list[tuple[str, bool]]:
    return [("no name", bool(stop["name"])), ("out of sight", stop["seen"]), ("no ring", stop["ringed"])]
