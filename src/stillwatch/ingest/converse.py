"""Bodies of Amazon Bedrock's Converse API -> the same bodies in the shape of Anthropic's messages API.

Converse names every block by its only key (`{"text": ...}`, `{"toolUse": ...}`) where the messages API has a
`type`. Source: Amazon Bedrock API reference, Converse and ConverseStream. Odd parts are left out, as in
`bodies`; nothing here raises.
"""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]

_EVENTS = frozenset({"messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata"})


def is_converse(body: Any) -> bool:
    """Whether a request body is Converse's: by a member of its own, or by blocks without a `type`."""
    if not isinstance(body, dict):
        return False
    if any(key in body for key in ("inferenceConfig", "toolConfig", "additionalModelRequestFields")):
        return True
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and content:
            return isinstance(content[0], dict) and "type" not in content[0]
    return False


def messages_request(body: Body) -> Body:
    """A Converse request as a messages request. Model specific fields keep their names."""
    more = body.get("additionalModelRequestFields")
    out: Body = dict(more) if isinstance(more, dict) else {}
    config = body.get("inferenceConfig")
    if isinstance(config, dict):
        out["max_tokens"] = config.get("maxTokens", config.get("max_new_tokens"))
        out["temperature"] = config.get("temperature")
    if isinstance(body.get("system"), list):
        out["system"] = _blocks(body["system"])
    if isinstance(body.get("messages"), list):
        out["messages"] = [
            {**message, "content": _blocks(message.get("content"))}
            for message in body["messages"]
            if isinstance(message, dict)
        ]
    tools = body.get("toolConfig")
    tools = tools.get("tools") if isinstance(tools, dict) else None
    if isinstance(tools, list):
        out["tools"] = [_tool(tool["toolSpec"]) for tool in tools if _has(tool, "toolSpec")]
    return out


def messages_reply(body: Any) -> Any:
    """A Converse answer, or the events of a ConverseStream, as a messages answer; other bodies unchanged."""
    if isinstance(body, list) and any(_EVENTS & set(part) for part in body if isinstance(part, dict)):
        body = _assembled(body)
    if not (isinstance(body, dict) and _has(body, "output")):
        return body
    message = body["output"].get("message")
    content = message.get("content") if isinstance(message, dict) else None
    out: Body = {"type": "message", "content": _blocks(content), "stop_reason": body.get("stopReason")}
    usage = body.get("usage")
    if isinstance(usage, dict):
        out["usage"] = {
            "input_tokens": usage.get("inputTokens"),
            "output_tokens": usage.get("outputTokens"),
            "cache_read_input_tokens": usage.get("cacheReadInputTokens"),
            "cache_creation_input_tokens": usage.get("cacheWriteInputTokens"),
        }
    if isinstance(body.get("metrics"), dict):
        out["latency_ms"] = body["metrics"].get("latencyMs")
    return out


def _has(value: Any, key: str) -> bool:
    return isinstance(value, dict) and isinstance(value.get(key), dict)


def _tool(spec: Body) -> Body:
    schema = spec.get("inputSchema")
    schema = schema.get("json") if isinstance(schema, dict) else None
    return {"name": spec.get("name"), "description": spec.get("description"), "input_schema": schema}


def _blocks(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [_block(block) if isinstance(block, dict) and "type" not in block else block for block in content]


def _block(block: Body) -> Body:
    if isinstance(block.get("text"), str):
        return {"type": "text", "text": block["text"]}
    if _has(block, "toolUse"):
        call = block["toolUse"]
        return {"type": "tool_use", "name": call.get("name"), "input": call.get("input")}
    if _has(block, "toolResult"):
        return {"type": "tool_result", "content": _blocks(block["toolResult"].get("content"))}
    if _has(block, "reasoningContent"):
        inner = block["reasoningContent"]
        if _has(inner, "reasoningText"):
            text = inner["reasoningText"]
            return {"type": "thinking", "thinking": text.get("text"), "signature": text.get("signature")}
        return {"type": "redacted_thinking", "data": inner.get("redactedContent")}
    return block


def _assembled(events: list[Any]) -> Body:
    """The answer that the events of a ConverseStream add up to."""
    blocks: dict[int, Body] = {}
    body: Body = {}
    for event in events:
        if not isinstance(event, dict):
            continue
        if _has(event, "contentBlockStart"):
            start = event["contentBlockStart"].get("start")
            blocks[_index(event["contentBlockStart"])] = dict(start) if isinstance(start, dict) else {}
        elif _has(event, "contentBlockDelta") and _has(event["contentBlockDelta"], "delta"):
            block = blocks.setdefault(_index(event["contentBlockDelta"]), {})
            _extend(block, event["contentBlockDelta"]["delta"])
        elif _has(event, "messageStop"):
            body["stopReason"] = event["messageStop"].get("stopReason")
        elif _has(event, "metadata"):
            body |= {key: event["metadata"].get(key) for key in ("usage", "metrics")}
    body["output"] = {"message": {"content": [blocks[index] for index in sorted(blocks)]}}
    return body


def _index(event: Body) -> int:
    index = event.get("contentBlockIndex")
    return index if isinstance(index, int) else 0


def _extend(block: Body, delta: Body) -> None:
    if isinstance(delta.get("text"), str):
        before = block.get("text")
        block["text"] = (before if isinstance(before, str) else "") + delta["text"]
    elif _has(delta, "reasoningContent"):
        inner = delta["reasoningContent"]
        whole = block.setdefault("reasoningContent", {})
        for key in ("text", "signature"):
            if isinstance(inner.get(key), str):
                text = whole.setdefault("reasoningText", {})
                text[key] = text.get(key, "") + inner[key]
        if inner.get("redactedContent") is not None:
            whole["redactedContent"] = inner["redactedContent"]
