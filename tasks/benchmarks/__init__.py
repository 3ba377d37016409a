"""The benchmarks by which alignment work is believed, scored as their official scripts score them.

    rewardbench   best-of-4 accuracy of a preference model (RewardBench 2), pair accuracy (RewardBench 1)
    alpaca_eval   win rate over a reference model, as it is and at equal length (AlpacaEval 2)
    arena_hard    win rate over a baseline on hard prompts, with and without style control (Arena-Hard-Auto v0.1, v2.0)
    mt_bench      grades of two-turn answers (MT-Bench)

Scores are pure functions of plain rows: lists of dicts as the official files hold them. They need no network, no model
and no judge; ``files`` reads and writes those files, ``intervals`` says how sure a number is.
"""
