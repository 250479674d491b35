"""`gpuctl bench`: how fast an instance serves, now and before."""

from __future__ import annotations

from typing import Any

import click

from gpuctl.benching.comparing import DIFFERENCE_COLUMNS, caveats, differences
from gpuctl.benching.tables import BENCHMARK_COLUMNS, heading, level_columns, remarks
from gpuctl.commands.naming import instance_or_none
from gpuctl.commands.progress import Step, phases
from gpuctl.failures import EXIT_INTERRUPTED, EXIT_REFUSED_BASE, Failure
from gpuctl.messages import duration, seconds_of, to_plain, word
from gpuctl.options import COUNT, WHOLE, command, qualified, span
from gpuctl.session import Session
from gpuctl.tables import clean
from gpud.v1.benchmarks_pb2 import (
    Benchmark,
    BenchmarkModelRequest,
    BenchmarkModelResponse,
    BenchmarkPhase,
    ListBenchmarksRequest,
)

_NOT_FOUND = 5  # grpc.StatusCode.NOT_FOUND


def _levels(text: str) -> tuple[int, ...]:
    """Counts of 1,4,8; a usage error says what would be accepted."""
    try:
        return tuple(COUNT(part) for part in text.split(","))
    except (ValueError, click.BadParameter) as error:
        raise click.BadParameter(f"{text!r} names no counts; write for example 1,4,8") from error


@command()
@click.argument("name", metavar="[MODEL|INSTANCE]", required=False)
@click.option("--concurrency", type=_levels, metavar="N,N", help="Requests at once (default: 1).")
@click.option("--prompts", type=COUNT, help="Requests at each of these (default: 32).")
@click.option("--prompt-tokens", type=COUNT, help="Length of a prompt (default: 128).")
@click.option("--tokens", type=COUNT, help="Tokens to generate for each (default: 64).")
@click.option("--warmup", type=WHOLE, help="Requests that count for nothing (default: 2).")
@click.option("--drained", is_flag=True, help="Begin when nobody else is served.")
@click.option("--limit", type=span, metavar="SPAN", help="End the whole run then (default: 10m).")
@click.option("--list", "listed", is_flag=True, help="Show those that were kept.")
@click.option("--compare", type=(str, str), metavar="A B", help="Two benchmarks, or models.")
def bench(session: Session, name: str | None, **asked: Any) -> None:
    """Measure how fast a loaded model serves, and keep the result.

    It sends requests of its own to the instance, which goes on serving others. Ctrl-C stops it.
    Results of --compare are in percent of A; of a model its latest is taken.
    """
    listed, compared = asked.pop("listed"), asked.pop("compare")
    if compared:
        _compare(session, *compared)
    elif listed:
        kept = _kept(session, name)
        columns = BENCHMARK_COLUMNS if kept else ()
        session.output.many("benchmarks", kept, columns, width=session.output.room)
    elif name is None:
        raise click.UsageError("name what to measure: a model or an instance")
    else:
        last = _measured(session, _request(session, name, asked))
        _check_measured(last)
        _show(session, last)


def _request(session: Session, name: str, asked: dict[str, Any]) -> BenchmarkModelRequest:
    limit, tokens = asked.pop("limit"), asked.pop("tokens")
    said = {option: value for option, value in asked.items() if value is not None}
    request = BenchmarkModelRequest(output_tokens=tokens or 0, **said)
    if limit is not None:
        request.limit.CopyFrom(duration(limit))
    instance = instance_or_none(session, name)
    if instance is None:
        request.model = qualified("models", name)
    else:
        request.instance = instance
    return request


def _measured(session: Session, request: BenchmarkModelRequest) -> BenchmarkModelResponse:
    """The last message. Raises Failure."""
    client, last = session.client, None
    try:
        with (
            phases(session) as report,
            client.stream(client.instances.BenchmarkModel, request) as said,
        ):
            for message in said:
                last = message
                report(_step(message))
                if session.output.form == "jsonl":
                    session.output.streamed(message)
    except KeyboardInterrupt:
        raise Failure(
            message="the benchmark was stopped; nothing is kept", exit_code=EXIT_INTERRUPTED
        ) from None
    if last is None or last.phase != BenchmarkPhase.BENCHMARK_PHASE_DONE:
        raise Failure(message="the benchmark ended without a result")
    return last


def _check_measured(last: BenchmarkModelResponse) -> None:
    """Raises Failure where not one request was answered: there are no numbers to show."""
    benchmark = last.benchmark
    if any(level.completed for level in benchmark.levels):
        return
    failed = [error for level in benchmark.levels for error in level.errors]
    reasons = [
        *benchmark.void_reasons,
        *(f"{each.kind}: {each.detail}" if each.detail else each.kind for each in failed),
    ]
    why = "; ".join(clean(each) for each in dict.fromkeys(reasons)) or clean(last.detail)
    raise Failure(message=f"nothing was measured: {why or 'gpud does not say why'}")


def _step(message: BenchmarkModelResponse) -> Step:
    total, detail = message.requests_total, message.detail
    phase = word(message, "phase")
    if total:
        phase = f"{phase} N={message.concurrency}"
        detail = detail or f"{total} requests"
    return Step(
        phase=phase,
        fraction=message.requests_done / total if total else None,
        detail=detail,
        elapsed_seconds=seconds_of(message.elapsed),
    )


def _show(session: Session, last: BenchmarkModelResponse) -> None:
    output, benchmark = session.output, last.benchmark
    if output.is_table:
        output.lines(heading(benchmark))
        output.lines(output.table(level_columns(benchmark)).lines(benchmark.levels))
        output.lines(remarks(benchmark))
        if last.detail:
            output.lines([last.detail])
    elif output.form != "jsonl":
        output.one(benchmark, ())


def _kept(session: Session, model: str | None = None) -> list[Benchmark]:
    """Oldest first."""
    request = ListBenchmarksRequest(model=qualified("models", model) if model else "")
    client = session.client
    pages = client.pages(client.instances.ListBenchmarks, request)
    return [each for page in pages for each in page.benchmarks]


def _compare(session: Session, first: str, second: str) -> None:
    kept = _kept(session)
    before, after = _find(kept, first), _find(kept, second)
    found, output = differences(before, after), session.output
    if not output.is_table:
        output.document(
            {
                "first": to_plain(before),
                "second": to_plain(after),
                "differences": [each.plain() for each in found],
                "caveats": list(caveats(before, after)),
            }
        )
        return
    output.lines(f"{each}: {told.name}" for each, told in (("A", before), ("B", after)))
    if found:
        output.lines(output.table(DIFFERENCE_COLUMNS, width=output.room).lines(found))
    output.lines(caveats(before, after))


def _find(kept: list[Benchmark], name: str) -> Benchmark:
    """By its own name; else the latest of the model of that name."""
    bare = name.removeprefix("benchmarks/")
    own = [each for each in kept if each.name == f"benchmarks/{bare}"]
    model = f"models/{name.removeprefix('models/')}"
    found = own or [each for each in kept if each.model == model]
    if not found:
        raise Failure(
            message=f"cannot find benchmark {name!r}; `gpuctl bench --list` shows what there is",
            exit_code=EXIT_REFUSED_BASE + _NOT_FOUND,
        )
    return found[-1]
