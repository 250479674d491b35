"""A program that passes for llama-server: its argv, its phases, its lines, its manners, no model.

`write_stub(directory, …)` writes an executable `llama-server` into the directory; how it behaves
is told by options of its own, in its wrapper, because an engine's environment is not inherited:

    --load-seconds S     answer 503 for so long
    --hold FILE          answer 503 until FILE exists
    --crash-at PHASE     start | bind | load | ready | request: say why and exit with 1
    --hang-at PHASE      bind | load | help: go no further
    --lose-port FILE     while FILE exists: remove it, say that the port is taken, exit with 1
    --ignore-term        take no notice of SIGTERM
    --allocate BYTES     resident memory, as weights would be
    --token-seconds S    between two tokens of an answer
    --answer-after FILE  no answer has a token until FILE exists

Standard library alone, and little of it: it starts in some 25 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
--version                               show version and build info
-t,    --threads N                      number of threads
-tb,   --threads-batch N                number of threads of prompts
-c,    --ctx-size N                     size of the prompt context
-b,    --batch-size N                   logical maximum batch size
-ub,   --ubatch-size N                  physical maximum batch size
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto')
-ctk,  --cache-type-k TYPE              KV cache data type for K
-ctv,  --cache-type-v TYPE              KV cache data type for V
-dev,  --device <dev1,dev2,..>          devices to use for offloading (none = don't offload)
-ngl,  --gpu-layers, --n-gpu-layers N   number of layers to store in VRAM
-fit,  --fit [on|off]                   whether to adjust unset arguments to fit in device memory
-lm,   --load-mode MODE                 model loading mode (default: auto)
                                        - auto: mmap, unless a device does not support it
                                        - none: no special loading mode
                                        - mmap: memory-map model
                                        - mlock: force system to keep model in RAM
                                        - mmap+mlock: both
-sm,   --split-mode {none,layer,row}    how to split the model across multiple GPUs
-ts,   --tensor-split N0,N1,N2,...      fraction of the model to offload to each GPU
-m,    --model FNAME                    model path to load
--offline                               Offline mode
-lv,   --verbosity, --log-verbosity N   Set the verbosity threshold. Values:
                                         - 3: info
                                         - 4: trace (more info)

----- example-specific params -----

-cram, --cache-ram N                    maximum cache size in MiB
-kvu,  --kv-unified, -no-kvu, --no-kv-unified
                                        use single unified KV buffer shared across all sequences
--pooling {none,mean,cls,last,rank}     pooling type for embeddings
-np,   --parallel N                     number of server slots
-cb,   --cont-batching, -nocb, --no-cont-batching
                                        whether to enable continuous batching
-mm,   --mmproj FILE                    path to a multimodal projector file
--rope-scaling {none,linear,yarn}       RoPE frequency scaling method
--yarn-orig-ctx N                       YaRN: original context size of model
-a,    --alias STRING                   set model name aliases
--host HOST                             IP address to listen on
--port PORT                             port to listen
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI
--embedding, --embeddings               restrict to only support embedding use case
--rerank, --reranking                   enable reranking endpoint on server
--api-key-file FNAME                    path to file containing API keys
--cache-reuse N                         min chunk size to attempt reusing from the cache
--sleep-idle-seconds SECONDS            idleness after which the server will sleep
--metrics                               enable prometheus compatible metrics endpoint
"""
VERSION = "version: 0.0.1 (build 1, commit stub)\n"
FLAG: dict[str, Any] = {"action": "store_true"}
LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}


def write_stub(directory: Path, *options: str) -> Path:
    """An executable llama-server that behaves as the options say."""
    path = directory / "llama-server"
    said = " ".join(f"'{option}'" for option in options)
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {__file__} {said} -- "$@"\n')
    path.chmod(0o755)
    return path


class Stub:
    def __init__(self, manners: argparse.Namespace, engine: argparse.Namespace) -> None:
        self.manners = manners
        self.engine = engine
        self.ready = False
        self.in_flight = 0
        self.predicted = 0
        self.weights = b""

    def run(self) -> None:
        say("srv  llama_server: initializing ...")
        self.reach("start")
        if self.manners.ignore_term:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.reach("bind")
        listener = self.listen()
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()
        say(f"srv    load_model: loading model '{self.engine.model}'")
        self.load()
        self.reach("ready")
        # By a pipe: what came just before a pause would not end it.
        signalled, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup)
        if not self.manners.ignore_term:
            signal.signal(signal.SIGTERM, stop)
        self.ready = True
        say("srv  llama_server: model loaded")
        while True:
            os.read(signalled, 1)

    def reach(self, phase: str) -> None:
        if self.manners.crash_at == phase:
            say(f"E stub: crashed in phase {phase}")
            os._exit(1)
        if self.manners.hang_at == phase:
            say(f"stub: hangs in phase {phase}")
            while True:
                signal.pause()

    def listen(self) -> socket.socket:
        listener = socket.socket()
        if self.manners.lose_port and os.path.exists(self.manners.lose_port):
            os.unlink(self.manners.lose_port)
            self.say_taken()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.engine.host, self.engine.port))
        except OSError:
            self.say_taken()
        listener.listen(64)
        return listener

    def say_taken(self) -> None:
        say(
            "E srv         start: couldn't bind HTTP server socket, "
            f"hostname: {self.engine.host}, port: {self.engine.port}"
        )
        sys.exit(1)

    def load(self) -> None:
        try:
            size = os.stat(self.engine.model).st_size
        except OSError:
            say(f"E llama_model_load: error loading model: failed to open {self.engine.model}")
            sys.exit(1)
        self.weights = b"w" * self.manners.allocate
        until = time.monotonic() + self.manners.load_seconds
        while time.monotonic() < until or (
            self.manners.hold and not os.path.exists(self.manners.hold)
        ):
            time.sleep(0.005)
        self.reach("load")
        cells = -(-self.engine.ctx_size // 256) * 256
        say(f"load_tensors:   CPU_Mapped model buffer size = {size / 2**20:8.2f} MiB")
        say(f"llama_kv_cache:        CPU KV buffer size = {cells * 512 / 2**20:8.2f} MiB")
        say("sched_reserve:        CPU compute buffer size =     1.00 MiB")

    def accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            while len(body) < content_length(head):
                body += connection.recv(65536)
            path = head.split(b" ")[1].decode() if b" " in head else ""
            if not self.ready:
                answer(connection, 503, LOADING)
            elif path == "/health":
                answer(connection, 200, {"status": "ok"})
            elif path == "/metrics":
                answer(connection, 200, self.metrics())
            elif path == "/v1/models":
                answer(connection, 200, {"data": [{"id": self.engine.alias, "object": "model"}]})
            elif path in ("/v1/embeddings", "/embedding"):
                answer(connection, 200, {"data": [{"embedding": [0.0, 1.0]}]})
            elif path in ("/v1/chat/completions", "/v1/completions", "/completion"):
                self.reach("request")
                self.generate(connection, json.loads(body or b"{}"))
            else:
                answer(connection, 404, {"error": {"message": "File Not Found", "code": 404}})

    def generate(self, connection: socket.socket, request: dict[str, object]) -> None:
        count = int(str(request.get("max_tokens", request.get("n_predict", 8))))
        self.in_flight += 1
        try:
            if request.get("stream"):
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                    b"Connection: close\r\n\r\n"
                )
            while self.manners.answer_after and not os.path.exists(self.manners.answer_after):
                time.sleep(0.005)
            for number in range(count):
                time.sleep(self.manners.token_seconds)
                self.predicted += 1
                if request.get("stream"):
                    delta = {"choices": [{"delta": {"content": f"{number} "}, "index": 0}]}
                    connection.sendall(f"data: {json.dumps(delta)}\n\n".encode())
            if request.get("stream"):
                connection.sendall(b"data: [DONE]\n\n")
            else:
                answer(connection, 200, completion(count, self.manners.token_seconds))
        except OSError:
            pass  # the client went away
        finally:
            self.in_flight -= 1

    def metrics(self) -> str:
        return (
            f"llamacpp:tokens_predicted_total {self.predicted}\n"
            f"llamacpp:requests_processing {self.in_flight}\n"
            "llamacpp:requests_deferred 0\n"
        )


def completion(count: int, token_seconds: float) -> dict[str, object]:
    text = " ".join(map(str, range(count)))
    return {
        "choices": [{"index": 0, "text": text, "message": {"content": text}}],
        "usage": {"completion_tokens": count, "prompt_tokens": 1},
        "timings": {
            "prompt_n": 1,
            "prompt_ms": 1.5,
            "predicted_n": count,
            "predicted_per_second": 1 / (token_seconds or 0.01),
        },
    }


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def answer(connection: socket.socket, status: int, said: object) -> None:
    body = (said if isinstance(said, str) else json.dumps(said)).encode()
    head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError):  # the client went away
        connection.sendall(head.encode() + body)


def say(line: str) -> None:
    level = "" if line.startswith("E ") else "I "
    os.write(2, f"0.00.001.000 {level}{line}\n".encode())


def stop(_number: int, _frame: object) -> None:
    say("srv    operator(): operator(): cleaning up before exit...")
    os._exit(0)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, argparse.Namespace]:
    manners = argparse.ArgumentParser()
    manners.add_argument("--load-seconds", type=float, default=0.0)
    manners.add_argument("--hold", default="")
    manners.add_argument("--crash-at", default="")
    manners.add_argument("--hang-at", default="")
    manners.add_argument("--lose-port", default="")
    manners.add_argument("--ignore-term", action="store_true")
    manners.add_argument("--allocate", type=int, default=0)
    manners.add_argument("--token-seconds", type=float, default=0.0)
    manners.add_argument("--answer-after", default="")
    engine = argparse.ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
    for line in HELP.splitlines():
        if line.startswith("-") and not line.startswith("-----"):
            # Names that reach into the column of descriptions have theirs on the next line.
            entry = (line[:40] if line[39:40] in ("", " ") else line).split()
            names = [word.rstrip(",") for word in entry if word.startswith("-")]
            takes_value = len(names) < len(entry)
            engine.add_argument(*names, **({"default": ""} if takes_value else FLAG))
    split = arguments.index("--")
    return manners.parse_args(arguments[:split]), engine.parse_args(arguments[split + 1 :])


def main() -> None:
    manners, engine = parse(sys.argv[1:])
    if engine.help or engine.version:
        if manners.hang_at == "help":
            signal.pause()
        print(HELP if engine.help else VERSION, end="")
        return
    engine.port, engine.ctx_size = int(engine.port), int(engine.ctx_size)
    Stub(manners, engine).run()


if __name__ == "__main__":
    main()
