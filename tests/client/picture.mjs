// Takes the pictures that README shows, of a running hub on this machine:
//
//     node tests/client/picture.mjs http://127.0.0.1:8182/admin tests/pictures/admin.webp [dark|light] [width] [user id] [seconds]
//     node tests/client/picture.mjs http://127.0.0.1:8182/playground tests/pictures/playground.webp [dark|light] [width]
//
// It looks at the operators' page for some seconds first, so that the charts have something to show, and goes through
// the steps of the playground, for which the hub has to be fresh.

import { launch } from "./browser.mjs";

const [address, file, scheme = "dark", width = "1280", user = "", seconds = "180"] = process.argv.slice(2);

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function watchNumbers(page) {
  await pause(Number(seconds) * 1000);
  if (!user) return;
  await page.type("#user-id", user);
  await page.click("#user-form button");
  await page.waitForSelector("#user:not([hidden])");
}

async function play(page) {
  const pane = (number) => `.pane:nth-child(${number})`;
  await page.waitForSelector(`${pane(2)}[data-state="connected"]`);
  await page.click("#add-user");
  await page.waitForSelector(`${pane(3)}[data-state="connected"]`);
  await page.click(`${pane(1)} [data-at="watch"] button`);
  await page.waitForSelector(`${pane(1)} [data-at="watched"] li`);
  for (const button of ["#update button", `${pane(2)} [data-at="match"]`, `${pane(3)} [data-at="match"]`]) {
    await page.click(button);
    // So that the logs of all panes are in the order in which a reader expects them.
    await pause(1_000);
  }
  await page.click("#add-visitors");
  await page.waitForSelector("#next:not([hidden])");
  await pause(3_000);
}

const browser = await launch();
try {
  const page = await browser.newPage();
  await page.setViewport({ width: Number(width), height: 900, deviceScaleFactor: 1.5 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(address);
  await (new URL(address).pathname === "/playground" ? play(page) : watchNumbers(page));
  await page.evaluate(() => document.activeElement.blur());
  const webp = file.endsWith(".webp");
  await page.screenshot({ path: file, fullPage: true, type: webp ? "webp" : "png", quality: webp ? 82 : undefined });
} finally {
  await browser.close();
}
