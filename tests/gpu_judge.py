"""transformers as the judge of a model's logits, and plain torch that rounds where kernels round.

Both compute in float32 on the weights as they are stored: what differs is the rounding of operands.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from checkpoint_layouts import blocks_to_interleaved
from torch import Tensor
from torch.nn import functional

from santacoder_shard.model import Layer, SantaCoder

# The judge's names for a layer's parameters.
LAYER_NAMES = {
    "ln_1": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_proj": "attn.c_proj",
    "ln_2": "ln_2",
    "mlp_fc": "mlp.c_fc",
    "mlp_proj": "mlp.c_proj",
}


def judge_of(model: SantaCoder) -> Any:
    """GPTBigCodeForCausalLM in float32 with the model's weights, where they are."""
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    geometry = model.geometry
    config: Any = GPTBigCodeConfig
    with model.token_embedding.device:
        judge: Any = GPTBigCodeForCausalLM(
            config(
                vocab_size=geometry.vocabulary_size,
                n_positions=geometry.context_token_count,
                n_embd=geometry.embedding_size,
                n_layer=geometry.layer_count,
                n_head=geometry.head_count,
                n_inner=geometry.inner_size,
                layer_norm_epsilon=geometry.layer_norm_epsilon,
                multi_query=geometry.kv_head_count == 1,
                activation_function={"gelu_tanh": "gelu_pytorch_tanh", "gelu_erf": "gelu"}[
                    geometry.activation
                ],
                attn_implementation="eager",
                bos_token_id=None,
                eos_token_id=None,
            )
        )
    tensors = _named(model)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    judge.load_state_dict(tensors)
    return judge.float().eval().requires_grad_(False)


def _named(model: SantaCoder) -> dict[str, Tensor]:
    tensors = {
        "transformer.wte.weight": model.token_embedding.data.float(),
        "transformer.wpe.weight": model.position_embedding.data.float(),
        "transformer.ln_f.weight": model.ln_f_weight.data.float(),
        "transformer.ln_f.bias": model.ln_f_bias.data.float(),
    }
    is_interleaved = model.geometry.kv_head_count > 1
    for number, layer in enumerate(model.layers):
        for ours, theirs in LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                tensor = layer.get_parameter(f"{ours}_{kind}").data.float()
                if ours == "attn_qkv" and is_interleaved:
                    tensor = blocks_to_interleaved(tensor, model.geometry.head_count)
                tensors[f"transformer.h.{number}.{theirs}.{kind}"] = tensor
    return tensors


@torch.no_grad()
def judged(judge: Any, ids: list[int], count: int) -> Tensor:
    """The judge's logits [count, V] of the last positions."""
    tokens = torch.tensor([ids], device=judge.device)
    logits: Tensor = judge(tokens, logits_to_keep=count).logits[0]
    return logits


@torch.no_grad()
def rounded_logits(model: SantaCoder, ids: list[int], count: int) -> Tensor:
    """The same in plain torch, rounded at the kernels' points: what they may lose, and no more.

    Rounded to the weights' type are: normalized rows, q, k and v, attention's weights and context,
    and the inner activations. The residual stream and all sums are float32.
    """
    tokens = torch.tensor(ids, device=model.token_embedding.device)
    hidden = model.token_embedding[tokens].float() + model.position_embedding[: len(ids)].float()
    for module in model.layers:
        layer = cast(Layer, module)
        normal = _norm(model, hidden, layer.ln_1_weight, layer.ln_1_bias)
        fused = _rounded(model, _product(normal, layer.attn_qkv_weight, layer.attn_qkv_bias))
        context = _attention(model, fused)
        hidden = hidden + _product(context, layer.attn_proj_weight, layer.attn_proj_bias)
        normal = _norm(model, hidden, layer.ln_2_weight, layer.ln_2_bias)
        inner = _product(normal, layer.mlp_fc_weight, layer.mlp_fc_bias)
        approximate = "tanh" if model.geometry.activation == "gelu_tanh" else "none"
        inner = _rounded(model, functional.gelu(inner, approximate=approximate))
        hidden = hidden + _product(inner, layer.mlp_proj_weight, layer.mlp_proj_bias)
    normal = _norm(model, hidden[-count:], model.ln_f_weight, model.ln_f_bias)
    return normal @ model.token_embedding.float().T


def _rounded(model: SantaCoder, values: Tensor) -> Tensor:
    return values.to(model.dtype).float()


def _product(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.linear(rows, weight.float(), bias.float())


def _norm(model: SantaCoder, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    epsilon = model.geometry.layer_norm_epsilon
    normal = functional.layer_norm(rows, rows.shape[-1:], weight.float(), bias.float(), epsilon)
    return _rounded(model, normal)


def _attention(model: SantaCoder, fused: Tensor) -> Tensor:
    """fused [N, q + k + v] -> context [N, q]; every row sees itself and those before it."""
    geometry = model.geometry
    kv_size = geometry.kv_head_count * geometry.head_size
    sizes = [fused.shape[1] - 2 * kv_size, kv_size, kv_size]
    query, keys, values = (
        part.view(len(fused), -1, geometry.head_size).transpose(0, 1)
        for part in torch.split(fused, sizes, dim=1)
    )
    scores = query @ keys.transpose(1, 2) * geometry.head_size**-0.5
    ahead = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1)
    scores = scores.masked_fill(ahead, float("-inf"))
    weights = _rounded(model, (scores - scores.amax(-1, keepdim=True)).exp())
    context = weights @ values / weights.sum(-1, keepdim=True)
    return _rounded(model, context.transpose(0, 1).reshape(len(fused), -1))
