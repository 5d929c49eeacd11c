// What the tests of pages share: tabs that note errors, waiting, and whether a page can be read.

import assert from "node:assert/strict";

export const PHONE = { width: 360, height: 740 };
export const DESK = { width: 1280, height: 900 };

/** Waits for a condition; the deadline is generous, since nothing is timed. */
export async function until(what, condition) {
  const deadline = Date.now() + 15_000;
  for (;;) {
    const seen = await condition();
    if (seen === true) return;
    if (Date.now() > deadline) throw new Error(`not within 15 s: ${what}; seen: ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Notes what a tab writes to the console as an error or a warning, and what its script throws. */
export function noteErrors(page, errors) {
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
}

/** What a screen reader has to tell, a line each. */
export function spokenOf(node) {
  return [`${node.role} ${node.name ?? ""}`.trim(), ...(node.children ?? []).flatMap(spokenOf)];
}

/** Fails where the page is wider than the window, or text has too little contrast (WCAG AA). */
export async function assertReadable(page, what) {
  const width = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(width[0] <= width[1], `${what}: ${width[0]} pixels in a window of ${width[1]}`);
  const faint = await page.evaluate(() => {
    const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
    const luminance = (colour) => {
      const [r, g, b] = channels(colour).map((part) => {
        const share = part / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const groundOf = (place) => {
      for (let each = place; each; each = each.parentElement) {
        const colour = getComputedStyle(each).backgroundColor;
        if ((channels(colour)[3] ?? 1) === 1) return colour;
      }
      return "rgb(255, 255, 255)";
    };
    const dialog = document.querySelector("dialog[open]");
    const places = [...(dialog ?? document.body).querySelectorAll("*")].filter((place) => {
      const ownText = [...place.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.textContent.trim());
      return ownText && place.checkVisibility() && !["SCRIPT", "STYLE"].includes(place.tagName);
    });
    const contrasts = places.map((place) => {
      const [a, b] = [getComputedStyle(place).color, groundOf(place)].map(luminance);
      return [place.textContent.trim().slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
    return { seen: contrasts.length, faint: contrasts.filter(([, contrast]) => contrast < 4.5) };
  });
  assert.ok(faint.seen > 3, `${what}: there is text`);
  assert.deepEqual(faint.faint, [], `${what}: too faint`);
}
