// Takes the picture of the operators' page in src/telemetry/README.md, of a running hub on this machine:
//
//     node tests/client/picture.mjs http://127.0.0.1:8182 tests/pictures/admin.webp [dark|light] [width] [user id] [seconds]
//
// It looks for some seconds first, so that the charts have something to show.

import { launch } from "./browser.mjs";

const [address, file, scheme = "dark", width = "1280", user = "", seconds = "180"] = process.argv.slice(2);

const browser = await launch();
try {
  const page = await browser.newPage();
  await page.setViewport({ width: Number(width), height: 900, deviceScaleFactor: 1.5 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(`${address}/admin`);
  await new Promise((resolve) => setTimeout(resolve, Number(seconds) * 1000));
  if (user) {
    await page.type("#user-id", user);
    await page.click("#user-form button");
    await page.waitForSelector("#user:not([hidden])");
    await page.evaluate(() => document.activeElement.blur());
  }
  const webp = file.endsWith(".webp");
  await page.screenshot({ path: file, fullPage: true, type: webp ? "webp" : "png", quality: webp ? 82 : undefined });
} finally {
  await browser.close();
}
