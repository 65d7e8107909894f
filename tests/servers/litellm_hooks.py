"""What LiteLLM loads from its own side: keys without a database, and a callback that keeps every event.

It runs inside LiteLLM's environment; our tests never import it.
"""

import json
import os

from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException, UserAPIKeyAuth, hash_token

KEYS = json.loads(os.environ["STILLWATCH_KEYS"])
"""Key -> the fields of its owner."""


async def user_api_key_auth(request, api_key):
    if api_key not in KEYS:
        # A bare Exception would become a 500.
        raise ProxyException(message="invalid api key", type="auth_error", param="key", code=401)
    return UserAPIKeyAuth(api_key=api_key, token=hash_token(api_key), **KEYS[api_key])


class EventLog(CustomLogger):
    def _keep(self, kwargs):
        with open(os.environ["STILLWATCH_EVENTS"], "a") as out:
            out.write(json.dumps(kwargs["standard_logging_object"], default=str) + "\n")

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self._keep(kwargs)

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self._keep(kwargs)


event_log = EventLog()
