// node proof.mjs SUITE: each line `NAME URL` of standard input is one proof against the gateway at URL. Afterwards it
// says `ok`, or what failed and then `failed`.
import { inspect } from "node:util";

import { proofs } from "./proxy.mjs";

const suite = await import(`./${process.argv[2]}.mjs`);
for await (const line of proofs()) {
  const [name, url] = line.split(" ");
  try {
    await suite[name](url);
    console.log("ok");
  } catch (error) {
    console.log(`${inspect(error)}\nfailed`);
  }
  suite.cleanUp?.();
}
process.exit(0); // whatever keeps the loop alive, a heartbeat's watchdog say, has nothing more to prove
