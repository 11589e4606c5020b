"""LiteLLM against a running server, whole and as a stream."""
import sys

import litellm

litellm.telemetry = False
asked = dict(model="openai/model", api_base=sys.argv[1] + "/v1", api_key="none", temperature=0, max_tokens=16,
             messages=[{"role": "user", "content": "What is the capital of France?"}], num_retries=0)
whole = litellm.completion(**asked)
text = whole.choices[0].message.content
assert text and whole.usage.completion_tokens > 0
parts = list(litellm.completion(stream=True, stream_options={"include_usage": True}, **asked))
assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == text
rebuilt = litellm.stream_chunk_builder(parts, messages=asked["messages"])
assert rebuilt.choices[0].message.content == text
try:
    litellm.completion(**{**asked, "messages": [{"role": "user", "content": "a " * 200_000}]})
except litellm.ContextWindowExceededError:
    pass
else:
    raise AssertionError("a prompt that does not fit was accepted")
print(f"litellm: {text!r}")
