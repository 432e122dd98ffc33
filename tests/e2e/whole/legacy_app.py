"""An app on an older SDK: API version 2023-06-01, key in `x-api-key`. Run by `test_legacy_sdk.py` in the
environment that has that SDK; prints what it saw as JSON. Not part of the test process."""

import asyncio
import json
import os
import sys
from typing import Any

import anthropic

URL, KEY, MODEL = os.environ["APP_URL"], os.environ["APP_KEY"], "claude-opus-4-6"
ASK: Any = [{"role": "user", "content": "Hello"}]


def plain() -> dict[str, object]:
    with anthropic.Anthropic(base_url=URL, api_key=KEY) as client:
        message = client.messages.create(model=MODEL, max_tokens=20, temperature=0.5, messages=ASK)  # type: ignore
        with client.messages.stream(model=MODEL, max_tokens=20, messages=ASK) as stream:
            streamed = stream.get_final_message()
        counted = client.messages.count_tokens(model=MODEL, messages=ASK)
        models = client.models.list(limit=3)
    return {
        "text": message.content[0].text,
        "streamed": streamed.usage.output_tokens,
        "counted": counted.input_tokens,
        "models": len(models.data),
    }


async def asynchronous() -> str:
    async with anthropic.AsyncAnthropic(base_url=URL, api_key=KEY) as client:
        message = await client.beta.messages.create(model=MODEL, max_tokens=20, messages=ASK)
        return str(message.type)


def refused() -> dict[str, object]:
    with anthropic.Anthropic(base_url=URL, api_key=os.environ["BAD_KEY"]) as client:
        try:
            client.messages.create(model=MODEL, max_tokens=20, messages=ASK)
        except anthropic.AuthenticationError as error:
            return {"status": error.status_code, "request_id": error.request_id}
    return {}


seen = {
    "version": anthropic.__version__,
    **plain(),
    "async": asyncio.run(asynchronous()),
    "refused": refused(),
}
json.dump(seen, sys.stdout)
