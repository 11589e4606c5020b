"""LangChain's ChatOpenAI against a running server, whole and as a stream."""
import sys

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI

chat = ChatOpenAI(base_url=sys.argv[1] + "/v1", api_key="none", model="model", temperature=0, max_tokens=16, max_retries=0,
                  stream_usage=True)
messages = [SystemMessage("Be brief."), HumanMessage("What is the capital of France?")]
whole = chat.invoke(messages)
assert whole.content and whole.usage_metadata["output_tokens"] > 0
total = None
for chunk in chat.stream(messages):
    total = chunk if total is None else total + chunk
assert total.content == whole.content
assert total.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]
bound = chat.bind_tools([{"type": "function", "function": {"name": "look", "description": "Looks", "parameters": {"type": "object", "properties": {}}}}])
assert bound.invoke(messages).content is not None
plain = OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", model="model", temperature=0, max_tokens=8, max_retries=0)
assert plain.invoke("The capital of France is")
assert "".join(plain.stream("The capital of France is"))
print(f"langchain-openai: {whole.content!r}")
