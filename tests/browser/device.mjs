// Opens the page from an origin that the hub lists, or from one that it does not, and does what it is told on stdin:
// one JSON object a line in, one a line out.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const page_html = await readFile(new URL("page.html", import.meta.url));
const site = createServer((_, response) => response.setHeader("content-type", "text/html").end(page_html));
await new Promise((listening) => site.listen(0, "127.0.0.1", listening));
const { port } = site.address();

const browser = await chromium.launch({
  timeout: 180_000,
  executablePath: process.env.LOCKSTEP_CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
// The same server under two names is two origins.
const pages = {};
for (const host of ["127.0.0.1", "localhost"]) {
  pages[host] = await browser.newPage();
  await pages[host].goto(`http://${host}:${port}/`, { timeout: 120_000 });
}
const say = (value) => console.log(JSON.stringify(value ?? null));
say({ listed: `http://127.0.0.1:${port}` });

for await (const line of createInterface({ input: process.stdin })) {
  const { page, run, args } = JSON.parse(line);
  say(await pages[page].evaluate(([run, args]) => {
    const forget = () => { device.cursor = null; };
    const does = { connect, poll, forget, device: () => device };
    return does[run](...args);
  }, [run, args ?? []]));
}
await browser.close();
site.close();
