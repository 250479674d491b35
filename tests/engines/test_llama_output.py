"""llama-server's lines: as build 11669 printed them, and as older and CUDA builds do."""

from __future__ import annotations

import pytest

from gpud.engines.llama_output import (
    Buffer,
    charged_bytes,
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
