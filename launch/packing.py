"""Prompts and their answers as packed rows: a prompt is encoded once for its K answers, and nothing is padded inside.

A *tree* is a trunk (the tokens that all answers share) and K branches. Its columns lie side by side in a row, trunk
first; a branch's positions continue the trunk's, and a token sees its trunk and its own branch only:

    may see(q, k) = tree_q = tree_k  and  branch_k in {0, branch_q}  and  0 <= position_q - position_k (< window)

Rotary positions are relative and every other layer works on single tokens, so that each branch gets the very states
that it would get behind its own copy of the prompt (prefix sharing: arXiv 2410.20305, 2506.05433). Hence (K P + sum R)
tokens become (P + sum R).

    trees = [tree_of([prompt + a, prompt + b])]
    packed = pack(trees)
    hidden = hidden_states(backbone, **packed.tensors())            # [B, N, H]
    last = [hidden[row, end - 1] for row, spans in zip(packed.rows, packed.branch_spans) for _, end in spans]

`launch.segments` computes it without a mask under sdpa, the default kernel; `launch.masks` writes it as the mask that
every other kernel takes, and sdpa for texts of a few tokens. Left out: caches (`align.preference.session`
keeps one for answers that come later) and bidirectional backbones, whose prompt depends on its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from launch.errors import DataError

if TYPE_CHECKING:
    import torch

SHORT = 12
"""Tokens a trunk or branch must have on average for `launch.segments` to beat a dense mask. Measured on a CPU beside
padded rows: at 9 tokens (prompts of 6) a dense mask is 1.36 times as fast, segments 0.95; at 18, 1.09 and 1.27."""


Layout = Literal["shared", "packed", "padded"]
"""How sequences are laid out: prompts once for their answers, sequences end to end, or one padded row each."""


@dataclass(frozen=True)
class Tree:
    """One prompt and what follows it."""

    trunk: list[int]
    """Token ids that every branch continues; may be empty."""
    branches: list[list[int]]
    """K >= 1 continuations, none of them empty."""

    def __post_init__(self) -> None:
        if not self.branches or not all(len(branch) for branch in self.branches):
            raise DataError("a tree needs at least one branch, and every branch at least one token")

    def __len__(self) -> int:
        return len(self.trunk) + sum(map(len, self.branches))


def tree_of(sequences: Sequence[Sequence[int]], shared: int | None = None) -> Tree:
    """The tree of K token sequences.

    Args:
        sequences: K >= 1 lists of ids, none of them empty.
        shared: how many first tokens are the trunk; None takes all that the sequences have in common. In either case
            every branch keeps at least its last token.

    Raises:
        DataError: no sequence, an empty one, or fewer than `shared` tokens in common.
    """
    if not sequences or not all(len(s) for s in sequences):
        raise DataError("a tree needs at least one sequence, and every sequence at least one token")
    first, most = sequences[0], min(map(len, sequences)) - 1
    common = 0
    while common < most and all(s[common] == first[common] for s in sequences):
        common += 1
    if shared is not None:
        if common < min(shared, most):
            raise DataError(f"the sequences share {common} first tokens, not {shared}; leave `shared` out")
        common = min(shared, most)
    return Tree(list(first[:common]), [list(s[common:]) for s in sequences])


@dataclass
class Packed:
    """B rows of N columns and where each tree lies in them; padding is on the right."""

    input_ids: torch.Tensor
    """int64 [B, N]."""
    position_ids: torch.Tensor
    """int64 [B, N], counted from each tree's start; a branch continues its trunk's."""
    tree: torch.Tensor
    """int32 [B, N], number of the tree among those packed; -1 at padding."""
    branch: torch.Tensor
    """int32 [B, N], 0 in the trunk and at padding, 1 to K in the branches."""
    rows: list[int]
    """Per tree, its row."""
    starts: list[int]
    """Per tree, the column of its first token."""
    branch_spans: list[list[tuple[int, int]]]
    """Per tree and branch, first column and the one after the last."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a batch carries to the device, and `hidden_states` takes."""
        return {name: getattr(self, name) for name in ("input_ids", "position_ids", "tree", "branch")}

    def column(self, tree: int, branch: int, position: int) -> int:
        """Column of a token: the one at `position` (from 0) of the sequence that ends in `branch` (from 0)."""
        start, trunk = self.starts[tree], self.branch_spans[tree][0][0] - self.starts[tree]
        return start + position if position < trunk else self.branch_spans[tree][branch][0] + position - trunk


def pack(trees: Sequence[Tree], pad_id: int = 0, row_tokens: int = 0) -> Packed:
    """First-fit decreasing: the longest tree first, each into the first row that has room.

    Args:
        trees: at least one. Their order changes no tree's states.
        pad_id: fills the rows' ends; no token sees it.
        row_tokens: most tokens of a row; 0 takes the longest tree's. A longer tree gets a row of its own. By segments
            it changes nothing (they take rows apart). A mask costs row_tokens^2 a row: measured under a
            dense one, rows twice as long as the longest tree took 1.4 times as long at 256 prompt tokens and 2
            answers, four times 2.1, and at 8-token prompts nothing was faster than the longest tree either.

    Raises:
        DataError: no trees.
    """
    import torch

    if not trees:
        raise DataError("there is nothing to pack; give at least one tree")
    room = max(row_tokens, max(map(len, trees)))
    used: list[int] = []
    rows, starts = [0] * len(trees), [0] * len(trees)
    for number in sorted(range(len(trees)), key=lambda n: -len(trees[n])):
        row = next((r for r, tokens in enumerate(used) if tokens + len(trees[number]) <= room), len(used))
        if row == len(used):
            used.append(0)
        rows[number], starts[number] = row, used[row]
        used[row] += len(trees[number])

    size = (len(used), max(used))
    input_ids = torch.full(size, pad_id, dtype=torch.long)
    position_ids = torch.zeros(size, dtype=torch.long)
    tree_of_column = torch.full(size, -1, dtype=torch.int32)
    branch_of_column = torch.zeros(size, dtype=torch.int32)
    spans: list[list[tuple[int, int]]] = []
    for number, tree in enumerate(trees):
        row, at, trunk = rows[number], starts[number], len(tree.trunk)
        whole = slice(at, at + len(tree))
        input_ids[row, whole] = torch.tensor([*tree.trunk, *(i for b in tree.branches for i in b)], dtype=torch.long)
        tree_of_column[row, whole] = number
        position_ids[row, at : at + trunk] = torch.arange(trunk)
        at += trunk
        spans.append([])
        for k, branch in enumerate(tree.branches):
            end = at + len(branch)
            position_ids[row, at:end] = torch.arange(trunk, trunk + len(branch))
            branch_of_column[row, at:end] = k + 1
            spans[-1].append((at, end))
            at = end
    return Packed(input_ids, position_ids, tree_of_column, branch_of_column, rows, starts, spans)


def hidden_states(
    backbone: Any,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor,
    tree: torch.Tensor,
    branch: torch.Tensor,
    read: torch.Tensor | None = None,
    by_segment: bool | None = None,
) -> torch.Tensor:
    """Run a decoder without head over packed rows, in the way that its attention kernel takes.

    Args:
        backbone: a decoder of transformers that `unservable` has nothing against, with or without adapters on it.
        input_ids: int64 [B, N].
        position_ids: int64 [B, N].
        tree: int [B, N], -1 at padding.
        branch: int [B, N], 0 in trunks.
        read: int64 [m], places in the flattened rows (row * N + column) of the only states that will be read, which
            saves work in the last layer where the kernel allows; None: all of them.
        by_segment: whether sdpa runs by segments (`launch.segments`) or under a dense mask, the readable twin; None:
            by segments unless they are shorter than `SHORT`.

    Returns:
        Last hidden states [B, N, H] in the backbone's dtype; meaningless at padding and outside of `read`.

    Raises:
        LaunchError: the backbone cannot be packed, or its kernel cannot share.
    """
    from launch import masks, segments

    masks.check(backbone, branch)
    kernel = masks.kernel_of(backbone)
    if kernel == "sdpa" and by_segment is not False:
        made = segments.Segments.of(tree, branch)
        if by_segment or len(made.tokens) >= SHORT * len(made.lengths):
            if read is not None:
                made.reading(read)
            return segments.hidden_states(backbone, input_ids, position_ids, made)
    if kernel == "flash_attention_2":  # reads the limits of whole sequences off one row of positions
        real = tree.reshape(-1) >= 0
        ids, at = input_ids.reshape(1, -1)[:, real], position_ids.reshape(1, -1)[:, real]
        found = backbone(input_ids=ids, position_ids=at, use_cache=False).last_hidden_state[0]
        rows = found.new_zeros(input_ids.numel(), found.shape[-1])
        rows[real] = found
        return rows.reshape(*input_ids.shape, -1)
    mask = masks.of_kernel(backbone, position_ids, tree, branch)
    return backbone(
        input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False
    ).last_hidden_state


def unservable(config_or_model: Any, shared: bool = True) -> str | None:
    """One line why an architecture or its attention kernel cannot be packed, else None.

    Args:
        config_or_model: a backbone or its config. A config that names no kernel is taken to get the right one.
        shared: whether prompts are to be shared; flash_attention_2 packs whole sequences only.
    """
    from launch.masks import unservable as reason

    return reason(config_or_model, shared)


def layout_for(config_or_model: Any, asked: Layout = "shared") -> tuple[Layout, str | None]:
    """The layout nearest to `asked` that is exact for a decoder, and one line why it is another one, else None."""
    if asked == "padded":
        return asked, None
    reason = unservable(config_or_model, shared=asked == "shared")
    if reason is None:
        return asked, None
    return ("packed" if unservable(config_or_model, shared=False) is None else "padded"), reason


def columns_run(packed: Packed, kernel: str) -> int:
    """Columns that `hidden_states` runs under an attention kernel: real tokens alone where no mask is needed (sdpa by
    segments, flash_attention_2), whole rows under a mask."""
    real = int((packed.tree >= 0).sum())
    segments = sum((s[0][0] > start) + len(s) for start, s in zip(packed.starts, packed.branch_spans, strict=True))
    unmasked = kernel == "flash_attention_2" or (kernel == "sdpa" and real >= SHORT * segments)
    return real if unmasked else packed.tree.numel()


def counters(packed: Packed) -> dict[str, int]:
    """The work of packed rows and of the K-fold padded batch they replace; counts, so that a test can hold them.

    Returns:
        tokens_real, tokens_padded (columns of padding), tokens_shared (trunk tokens that were not repeated), pairs (of
        a query and a key it may see, sliding windows not counted), row_pairs (all pairs of the rows, what a dense mask
        computes); kfold_tokens_real, kfold_tokens_padded, kfold_pairs: of one row per answer, as long as the longest.
    """
    real = int((packed.tree >= 0).sum())
    rows, columns = packed.tree.shape
    pairs = shared = 0
    lengths = []
    for start, spans in zip(packed.starts, packed.branch_spans, strict=True):
        trunk = spans[0][0] - start
        shared += trunk * (len(spans) - 1)
        pairs += trunk * (trunk + 1) // 2
        for first, end in spans:
            n = end - first
            pairs += n * trunk + n * (n + 1) // 2
            lengths.append(trunk + n)
    return {
        "tokens_real": real,
        "tokens_padded": rows * columns - real,
        "tokens_shared": shared,
        "pairs": pairs,
        "row_pairs": rows * columns**2,
        "kfold_tokens_real": sum(lengths),
        "kfold_tokens_padded": len(lengths) * max(lengths) - sum(lengths),
        "kfold_pairs": sum(n * (n + 1) // 2 for n in lengths),
    }
