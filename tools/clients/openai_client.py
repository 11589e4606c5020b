"""The openai package against a running server: chats, completions, streams, errors."""
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model
messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the capital of France?"}]
asked = dict(model=model, messages=messages, temperature=0, max_completion_tokens=24, seed=1)

whole = client.chat.completions.create(**asked)
text = whole.choices[0].message.content
assert text and whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
assert whole.choices[0].finish_reason in ("stop", "length")

chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked))
assert chunks[0].choices[0].delta.role == "assistant"
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens and not chunks[-1].choices
assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason

with client.chat.completions.stream(**asked) as stream:
    for _ in stream:
        pass
    assert stream.get_final_completion().choices[0].message.content == text

logged = client.chat.completions.create(logprobs=True, top_logprobs=2, **asked)
rows = logged.choices[0].logprobs.content
assert len(rows) >= logged.usage.completion_tokens - 1 and all(len(row.top_logprobs) == 2 for row in rows)
assert bytes(byte for row in rows for byte in row.bytes).decode().startswith(text[:10])

two = client.chat.completions.create(n=2, **{**asked, "temperature": 1.2})
assert [choice.index for choice in two.choices] == [0, 1]

stop = text[5:8]
stopped = client.chat.completions.create(stop=[stop], **asked)
assert stopped.choices[0].message.content == text.split(stop)[0] and stopped.choices[0].finish_reason == "stop"

tool = {"type": "function", "function": {"name": "look", "description": "Looks", "parameters": {"type": "object", "properties": {}}}}
with_tools = client.chat.completions.with_raw_response.create(tools=[tool], **asked)
assert "calls of tools come as text" in with_tools.headers["warning"]
assert with_tools.parse().choices[0].message.content is not None

completion = client.completions.create(model=model, prompt="The capital of France is", max_tokens=8, temperature=0, logprobs=1)
assert completion.choices[0].text and completion.choices[0].logprobs.token_logprobs
streamed = client.completions.create(model=model, prompt="The capital of France is", max_tokens=8, temperature=0, stream=True)
assert "".join(chunk.choices[0].text for chunk in streamed) == completion.choices[0].text

for wrong, error in (
    (dict(temperature=-1), openai.BadRequestError),
    (dict(messages=[{"role": "user", "content": "a " * 200_000}]), openai.BadRequestError),
):
    try:
        client.chat.completions.create(**{**asked, **wrong})
    except error as seen:
        assert seen.body["message"] and seen.body["type"] == "invalid_request_error", seen.body
    else:
        raise AssertionError(f"{wrong} was accepted")
try:
    client.chat.completions.create(**{**asked, "messages": [{"role": "user", "content": "a " * 200_000}]})
except openai.BadRequestError as seen:
    assert seen.code == "context_length_exceeded", seen

answer = client.chat.completions.create(extra_body={"top_k": 1, "min_p": 0.1, "typical_p": 1, "repeat_penalty": 1.0,
                                                    "min_tokens": 2, "ignore_eos": True, "cache_salt": "me"}, **asked)
assert answer.usage.completion_tokens == 24
print(f"openai {openai.__version__}: {text!r}")
