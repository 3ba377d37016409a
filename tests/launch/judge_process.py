"""A run that asks a judge, to be killed: python -m tests.launch.judge_process URL CACHE COUNT."""

from __future__ import annotations

import json
import sys

from launch.judge import JudgeClient, Question


def questions(count: int) -> list[Question]:
    return [Question([{"role": "user", "content": f"item {i}"}], max_tokens=8) for i in range(count)]


def main(url: str, cache: str, count: int) -> None:
    with JudgeClient(url, cache, "judge", concurrency=64, retries=8, timeout=2.0) as client:
        judged = client.ask(questions(count), parse=lambda reply: reply.text or None)
    print(json.dumps({"verdicts": judged.verdicts, "metrics": judged.metrics}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
