"""Is the measured time to first token that of the service? 256 requests in flight against a server of known pace.

The server (its own process) records when each request arrived and when its first token left; the runner measures from
sending to receiving. The difference of the two medians is due to the runner and the loopback.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from multiprocessing.queues import Queue
from pathlib import Path

from runner.record.folder import OUTCOMES
from tests.servers.openai_server import OpenAIServer


def main(*, prompts: int, size: int, first_token_s: float, token_s: float, tokens: int) -> None:
    """Measure and print."""
    url: Queue[str] = multiprocessing.Queue()
    stop: Queue[None] = multiprocessing.Queue()
    results: Queue[tuple[int, list[float]]] = multiprocessing.Queue()
    server = multiprocessing.Process(target=_serve, args=(first_token_s, token_s, url, stop, results))
    server.start()
    measured = _run(url.get(), prompts, size, tokens)
    stop.put(None)
    max_open, served = results.get()
    server.join()
    runner_s, server_s = statistics.median(measured), statistics.median(served)
    print(f"maximum of requests in flight: {max_open} (batch.size={size})")
    print(f"median time to first token: server {server_s:.4f} s, runner {runner_s:.4f} s")
    print(f"difference: {(runner_s - server_s) * 1000:.1f} ms")


def _serve(
    first_token_s: float,
    token_s: float,
    url: "Queue[str]",
    stop: "Queue[None]",
    results: "Queue[tuple[int, list[float]]]",
) -> None:
    with OpenAIServer(first_token_s=first_token_s, token_s=token_s) as server:
        url.put(server.url)
        stop.get()
        results.put(
            (server.most_open, [request.first_token_s for request in server.asked if request.first_token_s is not None])
        )


def _run(url: str, prompts: int, size: int, tokens: int) -> list[float]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "prompts.jsonl"
        text = " ".join(["word"] * tokens)
        path.write_text("\n".join(json.dumps({"prompt": text}) for _ in range(prompts)), encoding="utf-8")
        overrides = ["provider=openai", f"provider.base_url={url}/v1", f"batch.size={size}", "tracking.traces=off"]
        overrides += ["prompts=file", f"prompts.path={path}", "hydra.run.dir=out"]
        subprocess.run(
            [sys.executable, "-m", "runner", *overrides],
            cwd=scratch, env=os.environ | {"OPENAI_API_KEY": "none"}, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        lines = (Path(scratch) / "out" / OUTCOMES).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["time_to_first_token_s"] for line in lines]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1024)
    parser.add_argument("--size", type=int, default=256, help="batch.size")
    parser.add_argument("--first-token-s", type=float, default=0.5)
    parser.add_argument("--token-s", type=float, default=0.1)
    parser.add_argument("--tokens", type=int, default=10)
    main(**vars(parser.parse_args()))
