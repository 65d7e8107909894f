"""Reads answers with the official clients, in LiteLLM's environment, and prints what they make of them. Run by
test_sdks; our tests never import it."""

import json
import sys

import anthropic
import openai

BASE = sys.argv[1]
LOUD = {"max_retries": 0, "api_key": "none"}
OPENAI = openai.OpenAI(base_url=f"{BASE}/v1", **LOUD)
ANTHROPIC = anthropic.Anthropic(base_url=BASE, **LOUD)
ASKED = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def main():
    told = {}
    chat = OPENAI.chat.completions.create(**ASKED)
    told["chat"] = [chat.choices[0].message.content, chat.choices[0].logprobs, chat.usage.completion_tokens]
    with OPENAI.chat.completions.stream(**ASKED) as stream:
        for _ in stream:
            pass
        last = stream.get_final_completion()
    told["chat stream"] = [
        last.choices[0].message.content,
        last.choices[0].finish_reason,
        last.usage.completion_tokens,
    ]
    response = OPENAI.responses.create(model="m", input="hello")
    told["responses"] = [
        response.output_text,
        [item.type for item in response.output],
        response.output[0].summary,
    ]
    with OPENAI.responses.stream(model="m", input="hello") as stream:
        for _ in stream:
            pass
        last = stream.get_final_response()
    told["responses stream"] = [last.output_text, [item.type for item in last.output], last.output[0].summary]
    message = ANTHROPIC.messages.create(max_tokens=9, **ASKED)
    told["messages"] = [
        [block.type for block in message.content],
        message.content[0].thinking,
        message.content[1].text,
    ]
    with ANTHROPIC.messages.stream(max_tokens=9, **ASKED) as stream:
        for _ in stream:
            pass
        last = stream.get_final_message()
    told["messages stream"] = [
        [block.type for block in last.content],
        last.content[0].thinking,
        last.content[1].text,
    ]
    told["signature"] = [message.content[0].signature, last.content[0].signature]
    told["tool"] = [last.content[2].input, last.stop_reason, last.usage.output_tokens]
    print(json.dumps(told))


main()
