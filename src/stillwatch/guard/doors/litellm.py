"""The guard inside the LiteLLM proxy: a guardrail that refuses, strips and marks, and a logger of canonical rows.

Loaded by LiteLLM itself, by name (`guardrail: stillwatch.guard.doors.litellm.StillwatchGuardrail`); LiteLLM is no
dependency of ours. Written against LiteLLM 1.106.2, `integrations/custom_guardrail.py` and `proxy/utils.py`. Whatever
fails in here, the request goes on and is counted, or is refused where the configuration says so (`fail_closed`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from stillwatch.guard.doors.carry_out import ACTION, OURS
from stillwatch.guard.doors.events import EventLog
from stillwatch.guard.doors.http import STATUS, Identity, refusal, subject_of, tell
from stillwatch.guard.doors.late import Late
from stillwatch.guard.doors.strip import StripStream, strip_answer, strip_asked
from stillwatch.guard.doors.stripped import Answers
from stillwatch.guard.subject import Decision, Subject
from stillwatch.schema.errors import UsageError

try:
    from litellm.integrations.custom_guardrail import CustomGuardrail
    from litellm.litellm_core_utils.core_helpers import get_or_create_metadata_bucket
    from litellm.proxy._types import ProxyException, hash_token
    from litellm.types.guardrails import GuardrailEventHooks
except ImportError as error:
    raise UsageError(
        "this door runs inside the LiteLLM proxy, which is not installed here",
        hint="pip install 'litellm[proxy]==1.106.2' beside stillwatch",
    ) from error

LOG = logging.getLogger("stillwatch.guard")
PLACE = "stillwatch"
"""Where a decision stands in the metadata that LiteLLM keeps of a request."""
ASKED = frozenset({
    "completion", "acompletion", "text_completion", "atext_completion", "responses", "aresponses",
    "anthropic_messages",
})  # fmt: skip
"""Calls of a model that answers in text."""


class StillwatchGuardrail(CustomGuardrail):  # type: ignore[misc, unused-ignore]
    """Guardrail and logger. One per process."""

    def __init__(
        self,
        *,
        snapshot: str | None = None,
        proxies: int | str = 0,
        fail_closed: bool = False,
        events: str | None = None,
        **more: Any,
    ) -> None:
        """`snapshot`: the file, STILLWATCH_GUARD_SNAPSHOT otherwise; the secret comes from the environment.
        `proxies`: trusted ones before LiteLLM; `fail_closed`: 503 for what the guard could not judge;
        `events`: folder for the log of requests, none is written if not given. `more`: LiteLLM's own.
        """
        hooks = [GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call]
        super().__init__(supported_event_hooks=hooks, **more)
        if not str(proxies).isdecimal() or int(proxies) > 16:
            raise UsageError("the guardrail's `proxies` must be a number from 0 to 16")
        self.who = Identity(None, int(proxies))
        self.closed = fail_closed
        self.guard = Late(None if snapshot is None else Path(snapshot))
        self.answers = Answers()
        self.faults = 0
        """Requests that went on, or were refused where `fail_closed` says so, because of an error in here."""
        self.events: EventLog | None = None
        try:
            self.events = None if events is None else EventLog(Path(events))
        except OSError as error:
            LOG.error("no log of events is written: %s", error.strerror or "the folder cannot be used")

    # What LiteLLM calls before the model.

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> Any:
        """Decide; raises the refusal."""
        if getattr(call_type, "value", call_type) not in ASKED:
            return data
        try:
            guard = self.guard.guard
            if guard is None:
                refused = self._fault("no snapshot is loaded")
            else:
                decision = guard.decide(subject(user_api_key_dict, data, self.who))
                refused = self._carry_out(decision, data)
        except Exception as error:
            refused = self._fault(type(error).__name__)
        if refused is not None:
            raise refused
        return data

    def _fault(self, why: str) -> Exception | None:
        self.faults += 1
        if self.faults & (self.faults - 1) == 0:
            # The first, the second, the fourth: a log that is as long as the traffic helps nobody.
            LOG.error("the guard could not be asked (%d so far): %s", self.faults, why)
        if not self.closed:
            return None
        words = "The service cannot check this request at the moment."
        fault: Exception = ProxyException(words, "api_error", None, 503)
        return fault

    def _carry_out(self, decision: Decision, data: dict[str, Any]) -> Exception | None:
        _without_ours(data)
        if decision.would == "allow":
            return None
        tell(decision)
        self._record(decision, data)
        refused = refusal(decision)
        if refused is not None:
            return _refused(refused)
        if decision.action in ("strip", "mark"):
            _, bucket = get_or_create_metadata_bucket(data)
            bucket[PLACE] = {"action": decision.action, "campaign": decision.campaign}
            sent = data.get("extra_headers")
            mine = {ACTION.decode(): decision.action}
            data["extra_headers"] = {**sent, **mine} if isinstance(sent, dict) else mine
        if decision.action == "strip":
            less = strip_asked(data)
            if less is not None:
                for name in data.keys() - less.keys():
                    del data[name]
                data.update(less)
        return None

    def _record(self, decision: Decision, data: dict[str, Any]) -> None:
        """What LiteLLM's own logs say of the decision: no account, address or text."""
        said = msgspec.to_builtins(decision)
        said["lacked"] = list(said["lacked"])
        now = time.time()
        self.add_standard_logging_guardrail_information_to_request_data(
            guardrail_json_response=said, request_data=data, guardrail_provider="stillwatch", start_time=now,
            guardrail_status="guardrail_intervened" if decision.action in STATUS else "success", end_time=now,
            duration=0.0, event_type=GuardrailEventHooks.pre_call,
        )  # fmt: skip

    # What it calls after the model.

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> Any:
        """A whole answer."""
        if not _strips(data):
            return response
        try:
            return self._stripped(response)
        except Exception:
            self.answers.unread += 1
            return response

    def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """A stream. One that nothing is taken out of is handed back as it is: it costs nothing for each chunk."""
        if not _strips(request_data):
            return response
        return self._stripping(response)

    async def _stripping(self, response: Any) -> AsyncIterator[Any]:
        stream = StripStream()
        changed = unread = 0
        text = False
        async for chunk in response:
            try:
                if isinstance(chunk, bytes | str):
                    text = isinstance(chunk, str)
                    raw = stream.feed(chunk.encode() if isinstance(chunk, str) else chunk)
                    out: Any = (raw.decode() if text else raw) or None
                else:
                    found, out = _less(chunk)
                    changed += found in ("changed", "dropped")
                    unread += found == "unknown"
                    out = None if found == "dropped" else out
            except Exception:
                unread += 1
                out = chunk
            if out is not None:
                yield out
        rest = stream.close()
        if rest:
            yield rest.decode("utf-8", "replace") if text else rest
        self.answers.changed += (changed + stream.changed) > 0
        self.answers.unread += (unread + stream.unknown) > 0

    def _stripped(self, response: Any) -> Any:
        found, out = _less(response)
        self.answers.changed += found == "changed"
        self.answers.unread += found == "unknown"
        return out

    # What it calls when a request is over.

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Log the request."""
        self._note(kwargs)

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Log the request; our own refusals are failures too, and say so."""
        self._note(kwargs)

    def _note(self, kwargs: Any) -> None:
        if self.events is None:
            return
        try:
            params = kwargs.get("litellm_params")
            ip = _address(params, self.who) if isinstance(params, dict) else None
            self.events.note(kwargs.get("standard_logging_object"), ip)
        except Exception:
            self.events.broken += 1


def subject(caller: Any, data: Mapping[str, Any], who: Identity) -> Subject:
    """The subject of a request that LiteLLM has authenticated; the account as the importer names it: the user of the
    key, else the key's hash. A team or an organisation is nobody's name."""
    key = caller.token or caller.api_key
    account = caller.user_id or (hash_token(key) if isinstance(key, str) and key.startswith("sk-") else key)
    return Subject(account=account, body=dict(data), ip=_address(data, who))


def _address(data: Mapping[str, Any], who: Identity) -> str | None:
    asked = data.get("proxy_server_request")
    headers = asked.get("headers") if isinstance(asked, dict) else None
    if who.proxies:
        found = (
            [v for n, v in headers.items() if n.lower() == "x-forwarded-for"]
            if isinstance(headers, dict)
            else []
        )
        hops = [(b"x-forwarded-for", v.encode("latin-1", "replace")) for v in found if isinstance(v, str)]
        return subject_of(hops, None, None, who).ip
    from litellm.proxy.proxy_server import general_settings

    if general_settings.get("use_x_forwarded_for"):
        # Then what LiteLLM takes for the address may be of the client's own writing.
        return None
    for name in ("litellm_metadata", "metadata"):
        bucket = data.get(name)
        found_ip = bucket.get("requester_ip_address") if isinstance(bucket, dict) else None
        if isinstance(found_ip, str) and found_ip:
            return found_ip
    return None


def _without_ours(data: dict[str, Any]) -> None:
    """A client may name headers for the model's API: none of ours."""
    ours = OURS.decode()
    for name in ("extra_headers", "headers"):
        sent = data.get(name)
        if isinstance(sent, dict) and any(isinstance(n, str) and n.lower().startswith(ours) for n in sent):
            data[name] = {n: v for n, v in sent.items() if not str(n).lower().startswith(ours)}


def _refused(refused: tuple[int, list[tuple[bytes, bytes]], bytes]) -> Exception:
    status, headers, body = refused
    told = msgspec.json.decode(body)["error"]
    later = {n.decode(): v.decode() for n, v in headers if n == b"retry-after"}
    fault: Exception = ProxyException(
        message=told["message"], type=told["type"], param=None, code=status, headers=later,
        openai_code=told["code"], provider_specific_fields={"code": told["code"], "appeal": told["appeal"]},
    )  # fmt: skip
    return fault


def _strips(data: Mapping[str, Any]) -> bool:
    """Whether the answer is to be stripped, as was noted before the call. There may be a second place, the client's
    own: he could at most have himself stripped."""
    for name in ("litellm_metadata", "metadata"):
        bucket = data.get(name)
        noted = bucket.get(PLACE) if isinstance(bucket, dict) else None
        if isinstance(noted, dict) and noted.get("action") == "strip":
            return True
    return False


def _less(answer: Any) -> tuple[str, Any]:
    """An answer or an event, whatever LiteLLM made of it, without what is taken out."""
    if isinstance(answer, dict):
        return strip_answer(answer), answer
    plain = answer.model_dump()
    found = strip_answer(plain)
    if found != "changed":
        return found, answer
    less = type(answer)(**plain)
    for name in ("_hidden_params", "_response_headers"):
        if hasattr(answer, name):
            setattr(less, name, getattr(answer, name))
    return found, less
