// Starts headless Chromium, which Debian has.

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import puppeteer from "puppeteer-core";

function program() {
  for (const folder of process.env.PATH.split(delimiter)) {
    const program = join(folder, "chromium");
    try {
      accessSync(program, constants.X_OK);
      return program;
    } catch {
      // It is in another folder.
    }
  }
  throw new Error("chromium is missing: run tests/run, or install Debian's package chromium");
}

/** A browser with these flags, which ends with this process, however that ends. */
export function launch({ args = [], ...options } = {}) {
  // Its sandbox does not start as root.
  const asRoot = process.getuid() === 0 ? ["--no-sandbox"] : [];
  return puppeteer.launch({ executablePath: program(), pipe: true, args: [...args, ...asRoot], ...options });
}
