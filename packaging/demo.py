"""The main job from start to end, each command as a person would type it: `make demo`.

Needs $LLAMA_SERVER, the path of a llama-server; nothing else is asked of the machine. Everything
lies in a folder under .build and is gone at the end; after a failure the folder stays.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from typing import Any, NoReturn

from demo_stage import PROGRAMS, ROOT, DemoFailed, Stage, print_command

CHAT_LIMIT_SECONDS = 30.0
EXIT_RESOURCE_EXHAUSTED = 72
CONFIG = """\
[node]
state_dir = "{folder}/state"

[server]
socket = "{socket}"

[policy]
reserve_system_memory = "256MiB"   # a demo's; the default is 2GiB

[[devices.simulated]]
card = "p106-100"
count = 8

[engines.llama_cpp]
binary = "{engine}"

[models]
roots = ["{folder}"]

[models.tiny]
path = "tiny.gguf"
context_length = 512
parallel = 1
"""


def tell(text: str) -> None:
    """A word to the reader between two commands."""
    print(
        "\n" + textwrap.fill(text, 88, break_long_words=False, break_on_hyphens=False), flush=True
    )


def find_engine() -> str:
    """The llama-server that `make demo` got."""
    engine = os.environ.get("LLAMA_SERVER", "")
    if not engine or not os.access(engine, os.X_OK):
        raise DemoFailed("$LLAMA_SERVER names no program; run `make demo`, which gets one")
    for program in ("gpud", "gpuctl"):
        if not (PROGRAMS / program).exists():
            raise DemoFailed(
                f"{PROGRAMS / program} is missing; run `make demo`, which installs it"
            )
    return engine


def prepare(stage: Stage, engine: str) -> None:
    """A model with random weights and a configuration that names it."""
    tell("A tiny model with random weights, and a configuration with 8 simulated cards:")
    writer = os.path.relpath(ROOT / "packaging" / "tiny_model.py", stage.folder)
    stage.show(f"python {writer} tiny.gguf")
    config = CONFIG.format(folder=stage.folder, socket=stage.socket, engine=engine)
    (stage.folder / "gpud.toml").write_text(config)
    stage.show("cat gpud.toml")


def look_around(stage: Stage) -> None:
    """The daemon is up: what is there."""
    stage.start_daemon("gpud run --config gpud.toml")
    print_command(f"export GPUCTL_ADDRESS=unix://{stage.socket}")
    stage.show("gpuctl status")
    stage.show("gpuctl devices")


def simulated_card(stage: Stage) -> str:
    """The first of them: where there are real cards too, gpu0 is one of those."""
    devices: list[dict[str, Any]] = stage.ask("gpuctl devices")["devices"]
    return str(next(d["alias"] for d in devices if d["kind"] == "DEVICE_KIND_SIMULATED"))


def reserve(stage: Stage, card: str) -> str:
    """A promise, and one that would break it. Returns the reservation's name."""
    tell("4 GiB of a card, promised for a minute:")
    stage.show(f"gpuctl reserve --vram 4GiB --device {card} --ttl 60s")
    tell("5 GiB more is refused, with the numbers why (exit code 72, RESOURCE_EXHAUSTED):")
    stage.show(f"gpuctl reserve --vram 5GiB --device {card}", refused_with=EXIT_RESOURCE_EXHAUSTED)
    stage.show("gpuctl reservations")
    return str(stage.ask("gpuctl reservations")["reservations"][0]["name"])


def serve(stage: Stage, card: str) -> None:
    """A real model in a real llama-server, inside a promise on the host's memory."""
    tell("What the model will need, and where each number comes from:")
    stage.show("gpuctl estimate tiny --device host")
    before = host(stage)["granted_bytes"]
    tell("Load it on the host's memory, phase by phase:")
    stage.show("gpuctl load tiny --device host")
    stage.show("gpuctl instances")
    instance = stage.ask("gpuctl instances")["instances"][0]
    during = host(stage)["granted_bytes"]
    chat(instance["endpoint"])
    tell("What the devices show, three ticks:")
    stage.show(f"gpuctl watch --count 3 --device {card} --device host")
    stage.show("gpuctl unload tiny")
    after = host(stage)["granted_bytes"]
    stage.show("gpuctl devices")
    if not before == after < during:
        raise DemoFailed(
            f"the host's granted bytes: {before} before, {during} during, {after} after"
        )
    tell(
        f"The memory came back: of the host were granted {before:,} bytes before the load, "
        f"{during:,} while it served, {after:,} now."
    )


def host(stage: Stage) -> dict[str, Any]:
    """The device that is the host's memory."""
    devices: list[dict[str, Any]] = stage.ask("gpuctl devices")["devices"]
    return next(device for device in devices if device["alias"] == "host")


def chat(endpoint: str) -> None:
    """A streamed completion, its words shown as they arrive; random weights, random words."""
    body = {
        "messages": [{"role": "user", "content": "tell me about water"}],
        "max_tokens": 24,
        "seed": 1,
        "stream": True,
    }
    url = f"{endpoint}/v1/chat/completions"
    print_command(f"curl -N {url} -d '{json.dumps(body)}'")
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    pieces = 0
    with urllib.request.urlopen(request, timeout=CHAT_LIMIT_SECONDS) as answer:
        for line in answer:
            data = line.decode().strip().removeprefix("data: ")
            if not data or data == "[DONE]":
                continue
            choices = json.loads(data)["choices"]
            text = choices[0]["delta"].get("content") if choices else None
            if text:
                pieces += 1
                print(text if text.isprintable() else "·", end="", flush=True)
    print(f"\n({pieces} pieces, as the server streamed them)")
    if not pieces:
        raise DemoFailed("the endpoint streamed no text")


def finish(stage: Stage, reservation: str) -> None:
    """What happened, and the end."""
    stage.show(f"gpuctl release {reservation}")
    tell("Everything that was decided and done is in the journal:")
    stage.show("gpuctl events")
    stage.stop_daemon()


def play(stage: Stage, engine: str) -> None:
    """The story."""
    prepare(stage, engine)
    look_around(stage)
    card = simulated_card(stage)
    reservation = reserve(stage, card)
    serve(stage, card)
    finish(stage, reservation)


def stop(number: int, _frame: object) -> NoReturn:
    """A signal ends the demo through its clearing."""
    raise SystemExit(128 + number)


def told(error: Exception, stage: Stage | None = None) -> int:
    """What went wrong, for a person; the exit code."""
    print(f"\ncannot finish the demo: {error}", file=sys.stderr)
    if stage is not None and (tail := stage.log_tail()):
        print(f"The end of {stage.folder / 'gpud.log'}:\n{tail}", file=sys.stderr)
    return 1


def main() -> int:
    """Exit code 0 when every step showed what it should."""
    signal.signal(signal.SIGTERM, stop)
    started = time.monotonic()
    try:
        engine = find_engine()
    except DemoFailed as error:
        return told(error)
    stage = Stage()
    finished = False
    try:
        play(stage, engine)
        finished = True
    except (DemoFailed, subprocess.TimeoutExpired, OSError) as error:
        return told(error, stage)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        stage.clear(keep_folder=not finished)
    try:
        stage.check_traces()
    except DemoFailed as error:
        return told(error)
    seconds = time.monotonic() - started
    tell(f"Done in {seconds:.1f} s: no process is left, and no file outside {ROOT}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
