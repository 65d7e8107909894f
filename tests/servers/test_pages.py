"""The pages on gateways: whoever follows them gets what they promise. Their shell blocks run as written."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from stillwatch.guard.config import GATEWAYS, IN_PROCESS
from tests.guard.conftest import Scanned
from tests.guard.test_decide import _strong
from tests.servers.guarded import MASTER_KEY, SECRET, vllm_stand_in
from tests.servers.programs import ROOT, clean_environment, free_port, installed, missing, program
from tests.servers.today import alive
from tests.servers.upstream import ANSWER, model

pytestmark = pytest.mark.server

KEY = "sk-of-a-member"
NAMES = (*GATEWAYS, *(f"{name}-in-process" for name in IN_PROCESS), "envoy-ext_proc")
PAGES = ROOT / "docs" / "gateways"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def snapshot(scanned: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot in shadow mode that counts today; it knows one key, of a member."""
    demo = Scanned(*scanned, tmp_path_factory.mktemp("pages") / "snapshot", None)  # type: ignore[arg-type]
    return alive(demo, {KEY: _strong(demo)[0]["account_id"]})


@pytest.mark.parametrize("name", NAMES)
def test_a_page_keeps_its_promises(name: str, snapshot: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        missing("curl is not installed: the pages ask with it")
    folders = [str(Path(sys.executable).parent), *_programs(name, tmp_path)]
    with model() as upstream:
        text = "".join(_BLOCK.findall((PAGES / f"{name}.md").read_text("utf-8")))
        assert "guard config" in text
        # The page's ports may be in use here.
        ports = {
            "8000": upstream,
            "8080": free_port(),
            "8645": free_port(),
            "8646": free_port(),
            "4000": free_port(),
        }
        text = re.sub(r":(8000|8080|8645|8646)\b|--port 4000|:4000\b", lambda m: _port(m[0], ports), text)
        text = text.replace("guard serve", f"guard serve --port {ports['8645']}")
        text = re.sub(
            r"guard config (\w+)", rf"guard config \1 --guard http://127.0.0.1:{ports['8645']}", text
        )
        shutil.copy(snapshot, tmp_path / "snapshot")
        (tmp_path / "secret").write_text(SECRET)
        env = clean_environment(
            PYTHONPATH=str(ROOT / "src"), API_KEY=MASTER_KEY if name.startswith("litellm") else KEY,
            LITELLM_MASTER_KEY=MASTER_KEY, LITELLM_LOCAL_MODEL_COST_MAP="True", STILLWATCH_TEST_MODEL=str(upstream),
            XDG_DATA_HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path),
        )  # fmt: skip
        env["PATH"] = ":".join([*folders, env["PATH"]])
        told = _run(text, tmp_path, env)
    assert "status 200" in told
    assert ANSWER in (tmp_path / "answer.json").read_text("utf-8")
    if name == "litellm":
        assert '"requests":1,' in told
        return
    if name == "litellm-in-process":
        assert "the guard is ready: mode shadow" in told
        assert '"status":200' in told
        assert "hello" not in told
        return
    assert '"would":"block"' in told
    action = "action" if name in ("nginx", "vllm") else "stillwatch_action"
    assert f'"{action}":"observe"' in told
    assert KEY not in told


def _port(text: str, ports: Mapping[str, int]) -> str:
    return text[:-4] + str(ports[text[-4:]])


def _programs(name: str, folder: Path) -> list[str]:
    """Folders of the programs that the page calls."""
    if name == "nginx":
        return [str(installed("nginx", "STILLWATCH_NGINX", "apt-get install nginx-light").parent)]
    if name == "vllm":
        return [str(vllm_stand_in(folder))]
    name = name.partition("-")[0]
    return [str(program(name, f"STILLWATCH_{name.upper()}").parent)]


def _run(text: str, folder: Path, env: Mapping[str, str]) -> str:
    """What the blocks print, one after the other in one shell; what they leave running is stopped."""
    with (folder / "told").open("wb") as out:
        shell = subprocess.Popen(
            ["bash", "-eu", "-c", text], cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(150)
        finally:
            _stop(shell.pid)
            shell.wait(15)
    told = (folder / "told").read_text("utf-8", "replace")
    assert code == 0, told
    return told


def _stop(group: int) -> None:
    """Every process of the group, for good if it does not go by itself."""
    for end, sign in ((time.monotonic() + 15, signal.SIGTERM), (time.monotonic() + 20, signal.SIGKILL)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, sign)
            while time.monotonic() < end:
                os.killpg(group, 0)
                time.sleep(0.1)


def test_every_gateway_has_a_page_and_the_guide_names_it() -> None:
    guide = (ROOT / "docs" / "guard.md").read_text("utf-8")
    assert {path.stem for path in PAGES.glob("*.md")} == set(NAMES)
    assert all(f"gateways/{name}.md" in guide for name in NAMES)
