// The openai package of npm against a running server, whole and as a stream.
import assert from "node:assert";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "none", maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "What is the capital of France?" }];
const asked = { model, messages, temperature: 0, max_tokens: 16 };
const whole = await client.chat.completions.create(asked);
const text = whole.choices[0].message.content;
assert(text.length > 0 && whole.usage.total_tokens > 0);

let streamed = "";
let usage = null;
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(streamed, text);
assert.equal(usage.completion_tokens, whole.usage.completion_tokens);

const runner = client.chat.completions.stream(asked);
assert.equal(await runner.finalContent(), text);

// A client that breaks off leaves the server as it was.
const stream = await client.chat.completions.create({ ...asked, max_tokens: 2000, ignore_eos: true, stream: true });
for await (const chunk of stream) {
  if (chunk.choices[0].delta.content) break;
}
const completion = await client.completions.create({ model, prompt: "The capital of France is", max_tokens: 8, temperature: 0 });
assert(completion.choices[0].text.length > 0);
await assert.rejects(client.chat.completions.create({ ...asked, n: 99 }), (error) => error.status === 400 && error.param === "n");
console.log(`openai for Node: ${JSON.stringify(text)}`);
