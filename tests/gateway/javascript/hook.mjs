// The classic `useStream` of @langchain/langgraph-sdk/react, in a page of jsdom.
import assert from "node:assert/strict";

import { JSDOM } from "jsdom";

import { cut, eventually } from "./proxy.mjs";

const page = new JSDOM('<!doctype html><div id="root"></div>', { url: "http://localhost/" });
for (const name of ["window", "document", "navigator"]) {
  Object.defineProperty(globalThis, name, { value: page.window[name], configurable: true });
}
const { createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useStream } = await import("@langchain/langgraph-sdk/react");

const WORDS = Array.from({ length: 40 }, (_, number) => `word${number} `);
const QUESTION = { messages: [{ type: "human", content: "Tell me." }] };

/** A component that shows a thread by `useStream`; `stream()` is what it got at its last rendering. */
function shown(url, options) {
  let latest;
  let threadId = options.threadId ?? null;
  const errors = [];
  const Screen = () => {
    latest = useStream({
      apiUrl: url,
      apiKey: null,
      defaultHeaders: { "x-user": "alice" },
      onThreadId: (id) => (threadId = id),
      onError: (error) => errors.push(error),
      ...options,
    });
    return createElement("p", null, answerOf(latest)); // reading the messages asks for them
  };
  const root = createRoot(document.getElementById("root"));
  root.render(createElement(Screen));
  leave = () => root.unmount();
  return { errors, stream: () => latest, threadId: () => threadId, leave };
}

let leave = () => {};
export const cleanUp = () => leave();

const answerOf = (stream) => stream?.messages.filter((message) => message.type === "ai").map((one) => one.content).join("|");

async function mounted(url, options) {
  const screen = shown(url, options);
  await eventually(() => screen.stream(), "the first rendering");
  return screen;
}

async function answered(screen) {
  await eventually(() => answerOf(screen.stream()) === WORDS.join(""), "the whole answer");
  await eventually(() => !screen.stream().isLoading, "the end of the run");
  assert.deepEqual(screen.errors, []);
  assert.equal(document.getElementById("root").textContent, WORDS.join(""));
}

const beginning = (screen) => {
  const answer = answerOf(screen.stream()) ?? "";
  return answer.includes("word5 ") && !answer.includes("word35 ");
};

export async function streams_an_answer_word_by_word(url) {
  const screen = await mounted(url, { assistantId: "chat" });
  screen.stream().submit(QUESTION);
  await eventually(() => beginning(screen), "the first words");
  await answered(screen);
  assert.deepEqual(screen.stream().messages.map((message) => message.type), ["human", "ai"]);
}

export async function goes_on_after_a_cut(url) {
  // Without `reconnectOnMount` the hook asks for runs that end with the connection.
  const screen = await mounted(url, { assistantId: "chat", reconnectOnMount: true });
  screen.stream().submit(QUESTION);
  await eventually(() => beginning(screen), "the first words");
  await cut();
  await answered(screen);
}

export async function goes_on_after_the_page_was_loaded_anew(url) {
  const before = await mounted(url, { assistantId: "chat", reconnectOnMount: true });
  before.stream().submit(QUESTION);
  await eventually(() => beginning(before), "the first words");
  before.leave();
  const after = await mounted(url, { assistantId: "chat", reconnectOnMount: true, threadId: before.threadId() });
  await answered(after);
}

export async function asks_and_goes_on_with_the_answer(url) {
  const screen = await mounted(url, { assistantId: "asking" });
  screen.stream().submit({});
  await eventually(() => screen.stream().interrupt, "the question");
  assert.equal(screen.stream().interrupt.value, "what?");
  await eventually(() => !screen.stream().isLoading, "the end of the first run");
  screen.stream().submit(undefined, { command: { resume: "that" } });
  await eventually(() => screen.stream().values.answer === "that", "the answer");
}

export async function stops(url) {
  const screen = await mounted(url, { assistantId: "chat", reconnectOnMount: true });
  screen.stream().submit(QUESTION);
  await eventually(() => beginning(screen), "the first words");
  await screen.stream().stop();
  const { client } = screen.stream();
  const isInterrupted = async () => (await client.runs.list(screen.threadId()))[0].status === "interrupted";
  await eventually(isInterrupted, "the cancelled run", 5);
}

export async function shows_the_history(url) {
  const screen = await mounted(url, { assistantId: "chat", fetchStateHistory: true });
  screen.stream().submit(QUESTION);
  await answered(screen);
  await eventually(() => screen.stream().history.length >= 3, "the history");
  const first = screen.stream().messages[0];
  const { firstSeenState } = screen.stream().getMessagesMetadata(first);
  screen.stream().submit({ messages: [{ ...first, content: "Again." }] }, { checkpoint: firstSeenState.parent_checkpoint });
  await eventually(() => screen.stream().messages[0]?.content === "Again.", "the other branch");
  await answered(screen);
}
