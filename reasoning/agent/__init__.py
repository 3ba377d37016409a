"""Models that call tools: the loop of turn, calls and results, over any Generator or a server's native tool calls.

    from reasoning.agent import Agent, Budget, GeneratorTurns

    with Pool(available(), data="runs") as pool:
        agent = Agent(GeneratorTurns(generator, tokenizer), pool, Budget(turns=6))
        [transcript] = agent.run(["Rock beats scissors 9 times in 10, ... how often should I play each?"])
        print(transcript.answer, transcript.outcome)

`turns` asks models, `calls` reads what they wrote, `loop` is the agent, `transcript` keeps and replays what happened.
"""

from reasoning.agent.calls import Call, Turn
from reasoning.agent.loop import Agent, Budget
from reasoning.agent.transcript import Recorded, Step, Transcript, changed_results
from reasoning.agent.turns import GeneratorTurns, ServerTurns, Turns

__all__ = [
    "Agent",
    "Budget",
    "Call",
    "GeneratorTurns",
    "Recorded",
    "ServerTurns",
    "Step",
    "Transcript",
    "Turn",
    "Turns",
    "changed_results",
]
