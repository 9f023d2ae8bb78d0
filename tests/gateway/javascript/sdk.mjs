// The client of @langchain/langgraph-sdk, as it comes.
import assert from "node:assert/strict";

import { Client } from "@langchain/langgraph-sdk";

import { cut } from "./proxy.mjs";

const range = (count) => Array.from({ length: count }, (_, number) => number);
const ofMode = (parts, mode) => parts.filter((part) => part.event === mode).map((part) => part.data);
const numbers = (parts) => ofMode(parts, "custom").map((data) => data.n);
const assertUnique = (ids) => assert.equal(new Set(ids).size, ids.length);

const clientOf = (url, user = "alice") => new Client({ apiUrl: url, apiKey: null, defaultHeaders: { "x-user": user } });

async function begun(url) {
  const client = clientOf(url);
  const { thread_id: threadId } = await client.threads.create();
  return { client, threadId };
}

/** All parts of a stream; the connection is cut after the `cutAt`th event of mode custom. */
async function collected(stream, { cutAt } = {}) {
  const parts = [];
  for await (const part of stream) {
    parts.push(part);
    if (cutAt && part.event === "custom" && numbers(parts).length === cutAt) await cut();
  }
  return parts;
}

const isStatus = (status) => (error) => error.status === status || error.message.includes(`${status}`);

export async function streams(url) {
  const { client, threadId } = await begun(url);
  let created;
  const parts = await collected(
    client.runs.stream(threadId, "agent", {
      input: { count: 50 },
      streamMode: ["custom", "values", "updates"],
      onRunCreated: (run) => (created = run),
    }),
  );
  assert.deepEqual(created, { thread_id: threadId, run_id: parts[0].data.run_id });
  assert.equal(parts[0].event, "metadata");
  assert.deepEqual(new Set(parts.map((part) => part.event)), new Set(["metadata", "custom", "values", "updates"]));
  assert.deepEqual(numbers(parts), range(50));
  assert.equal(ofMode(parts, "values").at(-1).total, 50);
  assert.deepEqual(ofMode(parts, "updates"), [{ count: { total: 50 } }]);
  assertUnique(parts.map((part) => part.id));
}

export async function reports_what_failed(url) {
  const { client, threadId } = await begun(url);
  const input = { count: 2, fail: "no luck" };
  const parts = await collected(client.runs.stream(threadId, "agent", { input, streamMode: "custom" }));
  assert.deepEqual(ofMode(parts, "error"), [{ error: "RuntimeError", message: "no luck" }]);
  assert.equal(parts.at(-1).event, "error");
  await assert.rejects(client.runs.wait(threadId, "agent", { input }), /RuntimeError: no luck/);
  assert.equal((await client.threads.get(threadId)).status, "error");
}

export async function reconnects_by_itself(url) {
  const { client, threadId } = await begun(url);
  const payload = { input: { count: 60, pause: 0.02 }, streamMode: "custom" };
  const parts = await collected(client.runs.stream(threadId, "agent", payload), { cutAt: 20 });
  assert.deepEqual(numbers(parts), range(60));
  assertUnique(parts.map((part) => part.id));
}

export async function reconnects_with_its_filter(url) {
  const { client, threadId } = await begun(url);
  const payload = { input: { count: 60, pause: 0.02 }, streamMode: ["custom", "values"] };
  const { run_id: runId } = await client.runs.create(threadId, "agent", payload);
  const joined = client.runs.joinStream(threadId, runId, { lastEventId: "-1", streamMode: ["custom"] });
  const parts = await collected(joined, { cutAt: 20 });
  assert.deepEqual(numbers(parts), range(60));
  assert.deepEqual(ofMode(parts, "values"), []);
}

export async function rejoins_by_hand(url) {
  const { client, threadId } = await begun(url);
  const payload = { input: { count: 60, pause: 0.02 }, streamMode: "custom" };
  const { run_id: runId } = await client.runs.create(threadId, "agent", payload);
  const parts = [];
  for await (const part of client.runs.joinStream(threadId, runId, { lastEventId: "-1" })) {
    parts.push(part);
    if (numbers(parts).length === 15) break;
  }
  const lastEventId = parts.at(-1).id;
  parts.push(...(await collected(client.runs.joinStream(threadId, runId, { lastEventId }))));
  assert.deepEqual(numbers(parts), range(60));
  assertUnique(parts.map((part) => part.id));
}

export async function waits_joins_and_lists(url) {
  const { client, threadId } = await begun(url);
  assert.equal((await client.runs.wait(threadId, "agent", { input: { count: 3 } })).total, 3);
  const run = await client.runs.create(threadId, "agent", { input: { count: 4 }, metadata: { kind: "second" } });
  assert.equal((await client.runs.join(threadId, run.run_id)).total, 4);
  const found = await client.runs.get(threadId, run.run_id);
  assert.deepEqual([found.status, found.metadata.kind], ["success", "second"]);
  assert.deepEqual((await client.runs.list(threadId)).map((one) => one.status), ["success", "success"]);
}

export async function cancels(url) {
  const { client, threadId } = await begun(url);
  const long = { input: { count: 10000, pause: 0.02 } };
  const run = await client.runs.create(threadId, "agent", long);
  await assert.rejects(client.runs.create(threadId, "agent", { ...long, multitaskStrategy: "reject" }), isStatus(409));
  const began = Date.now();
  await client.runs.cancel(threadId, run.run_id, true);
  assert.ok(Date.now() - began < 2000);
  assert.equal((await client.runs.get(threadId, run.run_id)).status, "interrupted");
  assert.equal((await client.runs.wait(threadId, "agent", { input: { count: 2 } })).total, 2);
}

export async function answers_an_interrupt(url) {
  const { client, threadId } = await begun(url);
  const asked = await client.runs.wait(threadId, "asking", { input: {} });
  assert.equal(asked.__interrupt__[0].value, "what?");
  assert.equal((await client.threads.get(threadId)).status, "interrupted");
  const answered = await client.runs.wait(threadId, "asking", { command: { resume: "that" } });
  assert.equal(answered.answer, "that");
}

export async function keeps_threads(url) {
  const client = clientOf(url);
  const label = crypto.randomUUID();
  const thread = await client.threads.create({ metadata: { label } });
  const threadId = thread.thread_id;
  assert.equal((await client.threads.create({ threadId, ifExists: "do_nothing" })).thread_id, threadId);
  await assert.rejects(client.threads.create({ threadId, ifExists: "raise" }), isStatus(409));
  await client.threads.update(threadId, { metadata: { color: "red" } });
  const [found, ...others] = await client.threads.search({ metadata: { label } });
  assert.deepEqual([found.thread_id, found.metadata.color, others], [threadId, "red", []]);
  await client.runs.wait(threadId, "agent", { input: { count: 1 } });
  const state = await client.threads.getState(threadId);
  assert.deepEqual([state.values.total, state.next], [1, []]);
  await assert.rejects(clientOf(url, "mallory").threads.get(threadId), isStatus(404));
  await client.threads.delete(threadId);
  await assert.rejects(client.threads.get(threadId), isStatus(404));
}

export async function keeps_history(url) {
  const { client, threadId } = await begun(url);
  await client.runs.wait(threadId, "agent", { input: { count: 1 } });
  const past = await client.threads.getHistory(threadId);
  assert.deepEqual([past[0].values.total, past[0].next, past.at(-1).next], [1, [], ["__start__"]]);
  await client.threads.updateState(threadId, { values: { total: 7 }, asNode: "count" });
  assert.equal((await client.threads.getState(threadId)).values.total, 7);
  assert.equal((await client.threads.getState(threadId, past[0].checkpoint)).values.total, 1);
  const copy = await client.threads.copy(threadId);
  assert.equal((await client.threads.getState(copy.thread_id)).values.total, 7);
}

export async function keeps_assistants(url) {
  const client = clientOf(url);
  const [system] = await client.assistants.search({ graphId: "agent", metadata: { created_by: "system" } });
  assert.equal(system.graph_id, "agent");
  const graph = await client.assistants.getGraph("agent");
  assert.ok(graph.nodes.some((node) => node.id === "count"));
  assert.ok((await client.assistants.getSchemas("agent")).input_schema.properties.count);
  const made = await client.assistants.create({ graphId: "agent", name: "mine", metadata: { own: true } });
  assert.equal((await client.assistants.get(made.assistant_id)).name, "mine");
  const { thread_id: threadId } = await client.threads.create();
  assert.equal((await client.runs.wait(threadId, made.assistant_id, { input: { count: 2 } })).total, 2);
  assert.equal((await client.assistants.update(made.assistant_id, { name: "ours" })).name, "ours");
  await client.assistants.delete(made.assistant_id);
  await assert.rejects(client.assistants.get(made.assistant_id), isStatus(404));
}

export async function keeps_items(url) {
  const client = clientOf(url);
  const folder = ["notes", crypto.randomUUID()];
  await client.store.putItem(folder, "tea", { likes: "green" });
  assert.deepEqual((await client.store.getItem(folder, "tea")).value, { likes: "green" });
  assert.deepEqual((await client.store.searchItems(folder)).items.map((item) => item.key), ["tea"]);
  assert.deepEqual((await client.store.listNamespaces({ prefix: folder })).namespaces, [folder]);
  assert.deepEqual((await clientOf(url, "mallory").store.searchItems(folder)).items, []);
  await client.store.deleteItem(folder, "tea");
  assert.equal(await client.store.getItem(folder, "tea"), null);
}

export async function runs_without_a_thread(url) {
  const client = clientOf(url);
  assert.equal((await client.runs.wait(null, "agent", { input: { count: 3 } })).total, 3);
  const payload = { input: { count: 60, pause: 0.02 }, streamMode: "custom" };
  const parts = await collected(client.runs.stream(null, "agent", payload), { cutAt: 20 });
  assert.deepEqual(numbers(parts), range(60));
}
