"""Where turns come from: any Generator, shown the tools by its chat template, or a server's own tool calls.

`GeneratorTurns` renders the chat with the tokenizer's template (``tools=`` the schemas that TRL shows in training) and
reads the calls out of the completion. `ServerTurns` leaves both to an OpenAI-compatible server: vLLM with
``--enable-auto-tool-choice --tool-call-parser NAME``, or a provider's.

Left out: streaming; and continuing from token ids: each turn renders the chat anew, so that what a model wrote comes
back to it in the template's own spelling. Transcripts are for use, not for training (TRL's trainer keeps ids itself).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from launch.contracts import Generator, Prompt, Sampling
from launch.endpoint import Endpoint, ServerError
from launch.errors import RenderingError
from launch.generate.sampling import check, stable_hash
from launch.tools import ToolError, ToolSpec, parse_arguments
from reasoning.agent.calls import Call, Turn, read_turn

Chat = list[dict[str, Any]]
NO_ROOM = Turn("", finish="length")
"""The turn of a chat that results have filled up to the model's context."""


class Turns(Protocol):
    """Gives the next turn of chats."""

    def next(self, chats: Sequence[Chat], tools: Mapping[str, ToolSpec], sampling: Sampling) -> list[Turn]:
        """One turn for each chat, in their order."""
        ...


class GeneratorTurns:
    """Turns sampled by a `Generator`.

    Args:
        generator: any; all chats of a round go to it in one call.
        tokenizer: the model's, with a chat template that takes `tools`.
        template: further arguments of the template, such as ``{"enable_thinking": False}``.

    Raises:
        RenderingError: no chat template, or a response template that transformers refuses.
    """

    def __init__(self, generator: Generator, tokenizer: Any, template: Mapping[str, Any] | None = None) -> None:
        if tokenizer.chat_template is None:
            raise RenderingError(
                f"tokenizer {tokenizer.name_or_path!r} has no chat template; agents need one with tools"
            )
        if getattr(tokenizer, "response_template", None) is not None:
            try:  # now, since later any error would be taken for one of the model's
                tokenizer.parse_response("", prefix="")
            except (ValueError, KeyError, TypeError) as error:
                raise RenderingError(f"the tokenizer's response_template cannot be used: {error}; mend it") from error
        self.generator, self.tokenizer, self.template = generator, tokenizer, dict(template or {})

    def next(self, chats: Sequence[Chat], tools: Mapping[str, ToolSpec], sampling: Sampling) -> list[Turn]:
        schemas = [spec.schema for spec in tools.values()]
        prompts = [self.render(chat, schemas) for chat in chats]
        room = [self._has_room(chat, prompt) for chat, prompt in zip(chats, prompts, strict=True)]
        asked: list[Prompt] = [prompt for prompt, has in zip(prompts, room, strict=True) if has]
        answers = iter(self.generator.generate(asked, 1, sampling) if asked else [])
        return [read_turn(next(answers)[0], self.tokenizer, schemas) if has else NO_ROOM for has in room]

    def _has_room(self, chat: Chat, prompt: str) -> bool:
        """Whether a turn still fits behind what tools said. A first prompt that is too long is the caller's error."""
        context = getattr(self.generator, "context", None)
        if context is None or chat[-1]["role"] != "tool":
            return True
        return len(self.tokenizer(prompt, add_special_tokens=False)["input_ids"]) + 1 < context

    def render(self, chat: Chat, schemas: Sequence[dict[str, Any]]) -> str:
        """The text that the model reads.

        Raises:
            RenderingError: the template does not show the tools.
        """
        text = self.tokenizer.apply_chat_template(
            chat, tools=list(schemas) or None, add_generation_prompt=True, tokenize=False, **self.template
        )
        unseen = [schema["function"]["name"] for schema in schemas if schema["function"]["name"] not in text]
        if unseen:
            raise RenderingError(f"the chat template does not show tool {unseen[0]}; use one that takes tools")
        return text


class ServerTurns:
    """Turns of an OpenAI-compatible server, by its own tool calling (/v1/chat/completions).

    Args:
        base_url: with or without /v1.
        model: by default the first that the server lists.
        api_key_env: name of the environment variable that holds the key; None sends none.
        concurrency: requests under way at once.
        retries, timeout: see `launch.endpoint.Endpoint`.

    Raises:
        ConfigError: the variable of the key is not set.
        ServerError: the server cannot be reached or lists no model.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key_env: str | None = None,
        concurrency: int = 8,
        retries: int = 5,
        timeout: float = 600.0,
    ) -> None:
        self._server = Endpoint(base_url, api_key_env, concurrency, retries, timeout)
        self.concurrency = concurrency
        self.model = self._server.choose(model, self._server.models() if model is None else [])

    def next(self, chats: Sequence[Chat], tools: Mapping[str, ToolSpec], sampling: Sampling) -> list[Turn]:
        check(sampling, 1)
        with ThreadPoolExecutor(self.concurrency) as threads:
            return list(threads.map(lambda chat: self._ask(chat, tools, sampling), chats))

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def _ask(self, chat: Chat, tools: Mapping[str, ToolSpec], sampling: Sampling) -> Turn:
        messages = [_with_text_arguments(message) for message in chat]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": stable_hash(sampling.seed, json.dumps(messages, sort_keys=True)),
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if tools:
            body["tools"] = [spec.openai() for spec in tools.values()]
        answer = self._server.json("POST", "/v1/chat/completions", body, f"turn {len(chat)}")
        try:
            [choice] = answer["choices"]
            message = choice["message"]
            calls = tuple(_native(call) for call in message.get("tool_calls") or ())
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(
                f"turn {len(chat)}: {self._server.url} gave no message that can be read ({error!r})"
            ) from error
        tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0)
        finish: Any = "length" if choice.get("finish_reason") == "length" else "stop"
        return Turn((message.get("content") or "").strip(), calls, tokens, finish)


def _native(call: dict[str, Any]) -> Call:
    """A call as servers give it: arguments are JSON text that the model wrote, and may be none."""
    name, text = call["function"]["name"], call["function"]["arguments"]
    try:
        return Call(name, parse_arguments(text) if text else {}, str(call.get("id") or ""))
    except ToolError as error:
        return Call(name, text, str(call.get("id") or ""), str(error))


def _with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        function = {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}
        calls.append({**call, "function": function})
    return {**message, "tool_calls": calls}
