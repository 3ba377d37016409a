"""The language-model head without a [tokens x vocabulary] tensor, forward and backward.

Logits are made in chunks and again in the backward pass: memory is one chunk x vocabulary, whatever the batch. With
z the logits of a position (after the family's own scale and soft cap, over the temperature), t its token and
p = softmax z,

    log p(t) = z_t - logsumexp z        d log p(t) / dz_j = 1[j = t] - p_j
    H = logsumexp z - sum_j p_j z_j     dH / dz_j = -p_j (log p_j + H)

Left out: vocabulary-parallel heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

Tensor = torch.Tensor
LOGIT_BYTES = 128 * 2**20
"""Size of the one fp32 chunk of logits that exists at a time, where the caller names no chunk."""


def causal_lm(model: torch.nn.Module) -> Any:
    """The causal LM inside adapters, whose `base_model` (the decoder without head) and head are used apart."""
    inner: Any = model
    while hasattr(inner, "peft_config") and hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    return inner


def token_logprobs(
    model: torch.nn.Module,
    states: Tensor,  # [M, D]
    tokens: Tensor,  # int64 [M]
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    chunk: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """log p(token | state) of `model`'s head, and the entropy of each distribution if asked: float32 [M], nats.

    A plain head is read as a matrix, with one buffer for all chunks. A head with adapters, hooks or sharded weights is
    called as the module it is, each chunk under `torch.utils.checkpoint`.
    """
    causal = causal_lm(model)
    head, cap, scale = causal.get_output_embeddings(), _softcap(causal.config), logit_scale(causal.config)
    assert scale is not None, "callers send families with another scale elsewhere"
    chunk = chunk or max(16, LOGIT_BYTES // (4 * causal.config.get_text_config().vocab_size))
    if _is_plain(head):
        learns = torch.is_grad_enabled() and any(
            x is not None and x.requires_grad for x in (states, head.weight, head.bias)
        )
        return _Head.apply(
            states,
            head.weight,
            head.bias,
            tokens,
            chunk,
            scale / temperature,
            cap and cap / temperature,
            entropy,
            learns,
        )
    parts = [
        checkpoint(_through_module, head, s, t, scale, cap, temperature, entropy, use_reentrant=False)
        for s, t in zip(states.split(chunk), tokens.split(chunk), strict=True)
    ]
    return torch.cat([p for p, _ in parts]), torch.cat([h for _, h in parts]) if entropy else None


def _through_module(
    head: torch.nn.Module,
    states: Tensor,
    tokens: Tensor,
    scale: float,
    cap: float | None,
    temperature: float,
    entropy: bool,
) -> tuple[Tensor, Tensor | None]:
    logits = head(states).float() * scale  # [n, V]
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    logits = logits / temperature
    logz = logits.logsumexp(-1)
    logp = logits.gather(-1, tokens[:, None]).squeeze(-1) - logz
    return logp, logz - (logits.softmax(-1) * logits).sum(-1) if entropy else None


class _Head(torch.autograd.Function):
    """`_through_module` for a plain matrix, chunk by chunk in one buffer [chunk, V].

    A frozen head (adapters elsewhere) needs no second look at the logits: the gradient of a state is linear in that of
    its log-probability, so d log p / d state is stored, [M, D], while the logits are there.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        chunk: int,
        scale: float,
        cap: float | None,
        entropy: bool,
        learns: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.chunk, ctx.scale, ctx.cap = chunk, scale, cap
        ctx.dtype = _compute_dtype(states)
        count = len(states)
        logp = states.new_empty(count, dtype=torch.float32)
        logz = torch.empty_like(logp)
        h = torch.empty_like(logp) if entropy else None
        ready = learns and not entropy and not weight.requires_grad and (bias is None or not bias.requires_grad)
        slopes = states.new_empty(states.shape) if ready else None
        w = weight.to(ctx.dtype)
        buffer = w.new_empty(min(chunk, count), len(w))
        for start in range(0, count, chunk):
            part = slice(start, min(start + chunk, count))
            z = _logits(states[part], w, bias, buffer, scale, cap)  # [n, V], float32
            picked = z.gather(-1, tokens[part, None]).squeeze(-1)
            top = z.amax(-1, keepdim=True)
            if h is not None:
                p = z.sub(top).exp_()
                total = p.sum(-1)
                logz[part] = top.squeeze(-1) + total.log()
                h[part] = logz[part] - p.mul_(z).sum(-1) / total
            else:
                bend = _bend(z, cap) if slopes is not None else None
                z.sub_(top).exp_()
                total = z.sum(-1)
                logz[part] = top.squeeze(-1) + total.log()
                if slopes is not None:
                    z.div_(total[:, None]).neg_()
                    z.scatter_add_(-1, tokens[part, None], torch.ones_like(picked)[:, None])
                    slopes[part] = _down(z, bend, scale, ctx.dtype) @ w
            logp[part] = picked - logz[part]
        if learns:
            ctx.save_for_backward(states, weight, bias, tokens, logz, h, slopes)
        return logp, h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_logp: Tensor | None, grad_h: Tensor | None) -> tuple[Any, ...]:
        states, weight, bias, tokens, logz, h, slopes = ctx.saved_tensors
        nothing = (None,) * 6
        if grad_logp is None and grad_h is None:
            return None, None, None, *nothing
        if slopes is not None:
            assert grad_logp is not None
            return grad_logp[:, None].to(slopes.dtype) * slopes, None, None, *nothing
        wants_states, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_states = torch.empty_like(states) if wants_states else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias else None
        w = weight.to(ctx.dtype)
        buffer = w.new_empty(min(ctx.chunk, len(states)), len(w))
        for start in range(0, len(states), ctx.chunk):
            part = slice(start, min(start + ctx.chunk, len(states)))
            z = _logits(states[part], w, bias, buffer, ctx.scale, ctx.cap)
            bend = _bend(z, ctx.cap)
            z.sub_(logz[part, None])  # log p
            extra = None
            if grad_h is not None:
                extra = z.exp().mul_(z + h[part, None]).mul_(-grad_h[part, None])
            z.exp_()
            if grad_logp is not None:
                g = grad_logp[part, None]
                z.mul_(-g).scatter_add_(-1, tokens[part, None], g)
            else:
                z.zero_()
            if extra is not None:
                z.add_(extra)
            down = _down(z, bend, ctx.scale, ctx.dtype)
            if grad_states is not None:
                grad_states[part] = down @ w
            if grad_weight is not None:
                _add_product(grad_weight, down, states[part].to(ctx.dtype))
            if grad_bias is not None:
                grad_bias += down.sum(0, dtype=torch.float32)
        return (
            grad_states,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            *nothing,
        )


def _logits(
    states: Tensor, weight: Tensor, bias: Tensor | None, buffer: Tensor, scale: float, cap: float | None
) -> Tensor:
    """scale * (W s + b), soft-capped, float32 [n, V]; in `buffer` itself where that is float32."""
    out = torch.mm(states.to(weight.dtype), weight.t(), out=buffer[: len(states)])
    if bias is not None:
        out += bias.to(out.dtype)
    z = out.float()
    if scale != 1.0:
        z.mul_(scale)
    if cap is not None:
        z.div_(cap).tanh_().mul_(cap)
    return z


def _bend(z: Tensor, cap: float | None) -> Tensor | None:
    """Slope of the soft cap where it gave z: 1 - (z / cap)^2."""
    return None if cap is None else (z / cap).square_().neg_().add_(1.0)


def _down(grad: Tensor, bend: Tensor | None, scale: float, dtype: torch.dtype) -> Tensor:
    """The gradient below cap and scale, in the dtype of the product that follows."""
    if bend is not None:
        grad.mul_(bend)
    if scale != 1.0:
        grad.mul_(scale)
    return grad.to(dtype)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left^T right, summed over chunks in float32 whatever the dtype of the product."""
    if left.dtype == torch.float32:
        total.addmm_(left.t(), right)
    else:
        total += left.t() @ right


def _compute_dtype(states: Tensor) -> torch.dtype:
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


def _is_plain(head: Any) -> bool:
    """Whether reading the head's matrix is the same as calling it: no adapters, hooks, patches or shards."""
    return (
        type(head) is torch.nn.Linear
        and type(head.weight) is torch.nn.Parameter
        and not hasattr(head.weight, "ds_id")
        and "forward" not in vars(head)
        and not (head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or head._backward_pre_hooks)
    )


def _softcap(config: Any) -> float | None:
    """Gemma-2 squashes its final logits; every other family returns None here."""
    return getattr(config.get_text_config(), "final_logit_softcapping", None)


def logit_scale(config: Any) -> float | None:
    """What the family multiplies its logits with; None: it does something else with them.

    Cohere multiplies by logit_scale, Falcon-H1 by lm_head_multiplier, Granite divides by logits_scaling.
    """
    text = config.get_text_config()
    if text.model_type in ("hyperclovax", "muse_glimmer"):
        return None
    for name in ("logit_scale", "lm_head_multiplier"):
        if getattr(text, name, None) not in (None, 1, 1.0):
            return float(getattr(text, name))
    return 1.0 / float(getattr(text, "logits_scaling", None) or 1.0)
