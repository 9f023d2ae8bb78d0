// What is asked of the test that started us, over standard output, and what it asks.
import { createInterface } from "node:readline";
import { PassThrough } from "node:stream";

const requests = new PassThrough();
let answered;

createInterface({ input: process.stdin })
  .on("line", (line) => (line === "done" ? answered() : requests.write(`${line}\n`)))
  .on("close", () => requests.end());

/** The proofs that are asked for, a line each. */
export const proofs = () => createInterface({ input: requests });

/** The proxy resets every connection that is open now. */
export function cut() {
  const done = new Promise((resolve) => (answered = resolve));
  console.log("cut");
  return done;
}

/** The first true value of `check()`; an error after `seconds`. */
export async function eventually(check, what, seconds = 20) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`${what} did not come true within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
