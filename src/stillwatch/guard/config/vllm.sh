#!/bin/sh
# vLLM with Stillwatch's guard in its own process (--middleware). No service is needed beside it.
# Stillwatch has to be in vLLM's environment: pip install stillwatch. It sees the key, the address and the whole request.
# The secret stands in a file, or in STILLWATCH_GUARD_SECRET.
@!closed@# What a request meets that the guard could not decide about is the policy's: on_fault = "open" is the default.
@?closed@# What a request meets that the guard could not decide about is the policy's: write on_fault = "closed" into it.
set -eu
export STILLWATCH_GUARD_SNAPSHOT=@snapshot@
export STILLWATCH_GUARD_PROXIES=@hops@
@?account@# The proxy in front must remove it from what clients send.
@?account@export STILLWATCH_GUARD_ACCOUNT_HEADER=@account_header@
exec vllm serve @model@ --host @listen_host@ --port @listen_port@ \
@?tls@    --ssl-certfile @certificate@ --ssl-keyfile @key@ \
    --middleware stillwatch.guard.doors.asgi.StillwatchMiddleware "$@"
