"""llama-server's lines: as build 11669 printed them, and as older and CUDA builds do."""

from __future__ import annotations

import pytest

from gpud.engines.llama.output import (
    Buffer,
    covered,
    explain_exit,
    load_fraction,
    parse_buffers,
)
from gpud.models.model import FootprintWhat
from gpud.units import MIB

HOST_LINES = (
    "0.00.013.355 I load_tensors:   CPU_Mapped model buffer size =   153.75 MiB",
    "0.00.013.746 I llama_context:        CPU  output buffer size =     0.25 MiB",
    "0.00.013.930 I llama_kv_cache:        CPU KV buffer size =    48.00 MiB",
    "0.00.014.606 I llama_kv_cache: size =   48.00 MiB (  4096 cells,  12 layers,  1/1 seqs)",
    "0.00.016.987 I sched_reserve:        CPU compute buffer size =    30.50 MiB",
)
CUDA_LINES = (
    "load_tensors:   CPU_Mapped model buffer size =    70.31 MiB",
    "load_tensors:        CUDA0 model buffer size =  4095.00 MiB",
    "llama_kv_cache_unified:      CUDA0 KV buffer size =   512.00 MiB",
    "llama_memory_recurrent:      CUDA0 RS buffer size =    16.00 MiB",
    "llama_context:  CUDA_Host  output buffer size =     0.58 MiB",
    "llama_context:      CUDA0 compute buffer size =   258.50 MiB",
    "llama_context:  CUDA_Host compute buffer size =    16.01 MiB",
)
OLDER_LINES = (
    "llm_load_tensors:        CPU buffer size =    70.31 MiB",
    "llama_kv_cache_init:        CPU KV buffer size =   512.00 MiB",
    "llama_new_context_with_model:        CPU compute buffer size =   100.00 MiB",
)


def charged_bytes(buffers: tuple[Buffer, ...]) -> int | None:
    told = covered(buffers)
    return None if told is None else told.bytes


def test_buffers_are_read() -> None:
    assert parse_buffers(HOST_LINES) == (
        Buffer(where="CPU_Mapped", what=FootprintWhat.WEIGHTS, bytes=int(153.75 * MIB)),
        Buffer(where="CPU", what=FootprintWhat.OUTPUT, bytes=int(0.25 * MIB)),
        Buffer(where="CPU", what=FootprintWhat.KV_CACHE, bytes=48 * MIB),
        Buffer(where="CPU", what=FootprintWhat.COMPUTE, bytes=int(30.5 * MIB)),
    )
    assert [(each.where, each.what.value) for each in parse_buffers(CUDA_LINES)] == [
        ("CPU_Mapped", "weights"), ("CUDA0", "weights"), ("CUDA0", "kv_cache"), ("CUDA0", "state"),
        ("CUDA_Host", "output"), ("CUDA0", "compute"), ("CUDA_Host", "compute"),
    ]  # fmt: skip
    assert len(parse_buffers(OLDER_LINES)) == 2
    assert parse_buffers(("nothing", "model buffer size = x MiB", "")) == ()


def test_a_device_is_charged_with_what_lies_on_it() -> None:
    on_device = 4095 * MIB + 512 * MIB + 16 * MIB + int(258.5 * MIB)
    assert charged_bytes(parse_buffers(CUDA_LINES)) == on_device


def test_of_several_devices_the_dearest_counts() -> None:
    second = (
        "load_tensors:        CUDA1 model buffer size =  5000.00 MiB",
        "llama_kv_cache_unified:      CUDA1 KV buffer size =   128.00 MiB",
    )
    assert charged_bytes(parse_buffers((*CUDA_LINES, *second))) == 5128 * MIB


def test_matrices_split_by_rows_count_evenly() -> None:
    rows = (
        "load_tensors:   CUDA_Split model buffer size =  4000.00 MiB",
        "load_tensors:        CUDA0 model buffer size =     2.00 MiB",
        "load_tensors:        CUDA1 model buffer size =     1.00 MiB",
    )
    assert charged_bytes(parse_buffers(rows)) == 2002 * MIB
    assert charged_bytes(parse_buffers(rows[:1])) == 4000 * MIB


def test_the_host_is_charged_with_everything() -> None:
    assert charged_bytes(parse_buffers(HOST_LINES)) == int((153.75 + 0.25 + 48 + 30.5) * MIB)


def test_repacked_weights_are_not_charged_twice() -> None:
    repacked = parse_buffers(
        (*HOST_LINES, "load_tensors:   CPU_REPACK model buffer size =   160.00 MiB")
    )
    assert charged_bytes(repacked) == int((160 + 0.25 + 48 + 30.5) * MIB)


BUFFER = "load_tensors:   CPU_Mapped model buffer size =   9999.00 MiB"
# As build 11669 prints a name, a template of a chat and its own end.
TEXTS_OF_A_FILE = (
    f"0.00.044.222 I llama_model_loader: - kv   1:  general.url str  = {BUFFER}",
    "0.00.020.011 I print_info: general.name          = A name",
    f"0.00.020.011 I {BUFFER}",
    BUFFER,
    "0.00.045.144 I print_info: max token length      = 9",
)
TEXTS_OF_THE_SERVER = (
    "0.01.549.408 I srv          init: init: chat template, example_format: '<|system|>You",
    f"0.01.549.500 I {BUFFER}",
    BUFFER,
    "0.01.549.530 I srv  llama_server: model loaded",
)


def test_texts_of_the_model_are_no_buffers() -> None:
    told = (*TEXTS_OF_A_FILE, *HOST_LINES, *TEXTS_OF_THE_SERVER)
    assert parse_buffers(told) == parse_buffers(HOST_LINES)
    assert parse_buffers((f"0.00.044.222 I print_info: {BUFFER}",)) == ()
    assert parse_buffers((f"{BUFFER} and more", f"say {BUFFER}")) == ()


def test_texts_of_the_model_explain_nothing() -> None:
    text = "CUDA error: out of memory, invalid magic"
    lines = (
        f"0.00.044.222 I llama_model_loader: - kv   1:  general.url str  = {text}",
        f"0.00.020.011 I print_info: general.name          = {text}",
        f"llm_load_print_meta: general.name = {text}",
    )
    assert explain_exit(lines) == ""
    assert explain_exit((*lines, "E llama_model_load: error loading model: x")) != ""


def test_what_was_told_is_what_was_covered() -> None:
    told = covered(parse_buffers(CUDA_LINES))
    assert told is not None
    assert {each.value for each in told.what} == {"weights", "kv_cache", "state", "compute"}
    assert told.weights_bytes == 4095 * MIB
    without = tuple(line.replace("KV buffer", "K+V buffer") for line in CUDA_LINES)
    told = covered(parse_buffers(without))
    assert told is not None
    assert FootprintWhat.KV_CACHE not in told.what


def test_without_buffers_nothing_is_known() -> None:
    assert charged_bytes(()) is None


@pytest.mark.parametrize(
    ("lines", "fraction"),
    [
        ((), None),
        (("load_tensors: loading model tensors",), None),
        (("load_tensors: …", "."), 0.01),
        (("x", "." * 42), 0.42),
        (("." * 100, "llama_context: constructing"), 1.0),
        (("." * 101,), None),
    ],
)
def test_dots_are_percent(lines: tuple[str, ...], fraction: float | None) -> None:
    assert load_fraction(lines) == fraction


@pytest.mark.parametrize(
    ("lines", "meaning"),
    [
        (
            (
                "E srv         start: couldn't bind HTTP server socket, hostname: x, port: 1",
                "I srv    operator(): operator(): cleaning up before exit...",
                "E srv  llama_server: exiting due to HTTP server error",
            ),
            "its port is taken",
        ),
        (
            (
                "E gguf_init_from_reader: invalid magic characters: '???M', expected 'GGUF'",
                "E llama_model_load: error loading model: llama_model_loader: failed to load",
                "I srv    operator(): operator(): cleaning up before exit...",
                "E srv  llama_server: exiting due to model loading error",
            ),
            "the model file is not a GGUF file",
        ),
        (
            (
                "E llama_model_load: error loading model: tensor 'blk.0.attn_output.weight' data "
                "is not within the file bounds, model is corrupted or incomplete",
            ),
            "the model file is cut short",
        ),
        (
            (
                "E ggml_aligned_malloc: insufficient memory (attempted to allocate 9765.62 MB)",
                "E llama_init_from_model: failed to initialize the context: failed to allocate …",
            ),
            "it ran out of memory",
        ),
        (
            ("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9 MiB on device 0: "
             "cudaMalloc failed: out of memory",
             "llama_model_load: error loading model: unable to allocate CUDA0 buffer"),
            "it ran out of device memory",
        ),
        (
            (
                "E mtmd_init_from_file: error: Failed to load CLIP model from /srv/none.gguf",
                "E srv    load_model: failed to load multimodal model, '/srv/none.gguf'",
                "I srv    operator(): operator(): cleaning up before exit...",
                "E srv  llama_server: exiting due to model loading error",
            ),
            "the projector could not be loaded",
        ),
        (
            (
                "I srv    operator(): operator(): cleaning up before exit...",
                "E srv  llama_server: exiting due to model loading error",
            ),
            "the model could not be loaded",
        ),
        (("error: invalid argument: --bogus",), "this build refuses an argument"),
        (
            ("I srv    operator(): operator(): cleaning up before exit...",),
            "somebody else told it to stop",
        ),
        (("cannot execute /opt/x: Exec format error",), "the program cannot be executed"),
        ((), ""),
        (("I srv  update_slots: all slots are idle",), ""),
    ],
)  # fmt: skip
def test_last_lines_are_explained(lines: tuple[str, ...], meaning: str) -> None:
    assert explain_exit(lines) == meaning
