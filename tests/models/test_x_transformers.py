"""Our backbone and NextLat's losses against x-transformers, another implementation, given the same weights."""

import warnings

import pytest
import torch

from nextlat_viz.models import Batch, NextLat, Transformer, TransformerConfig

with warnings.catch_warnings():
    # Its import uses torch.jit, which torch has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from x_transformers import Decoder, TransformerWrapper
    from x_transformers.next_latent_wrapper import NextLatentWrapper

CONFIG = TransformerConfig(vocabulary_size=7, context=9, layers=2, heads=2, dim=64, mlp_dim=24, start_token=False)
PSI_WIDTH = 12
# x-transformers computes rotations from frequencies in single precision.
CLOSE = {"rtol": 1e-5, "atol": 1e-7}


@pytest.fixture
def ours():
    torch.manual_seed(0)
    objective = NextLat(Transformer(CONFIG), psi_width=PSI_WIDTH).double()
    for parameter in objective.parameters():
        parameter.data.normal_(std=0.2)
    return objective


@pytest.fixture
def tokens():
    return torch.randint(7, (3, 9), generator=torch.Generator().manual_seed(1))


def theirs(ours, rollouts):
    """Build their model and loss: rotary positions, RMSNorm, SwiGLU, psi with equal weights for all steps."""
    heads, size = CONFIG.heads, CONFIG.dim // CONFIG.heads
    decoder = Decoder(
        **{"dim": CONFIG.dim, "depth": CONFIG.layers, "heads": heads, "attn_dim_head": size, "use_rmsnorm": True},
        **{"rotary_pos_emb": True, "rotary_emb_dim": size},
        **{"ff_glu": True, "ff_swish": True, "ff_no_bias": True, "ff_mult": CONFIG.mlp_dim / CONFIG.dim},
    )
    net = TransformerWrapper(num_tokens=7, max_seq_len=9, use_abs_pos_emb=False, attn_layers=decoder)
    options = {"num_rollouts": rollouts, "dynamics_hidden_dim": PSI_WIDTH, "dynamic_rollout_loss_weight": False}
    wrapper = NextLatentWrapper(net, dim=CONFIG.dim, **options).double()

    def turned(weight):
        """They rotate neighbouring coordinates of a head, we those half a head apart."""
        return weight.view(heads, 2, size // 2, -1).transpose(1, 2).flatten(0, 2)

    def scale(norm, weight):
        """Their norm stores its scale minus one."""
        norm.g.copy_(weight - float(norm.unit_offset))

    with torch.no_grad():
        backbone = ours.backbone
        net.token_emb.emb.weight.copy_(backbone.embed.weight)
        net.to_logits.weight.copy_(backbone.head.weight)
        scale(decoder.final_norm, backbone.norm.weight)
        for i, block in enumerate(backbone.blocks):
            (norms, attention, _), (mlp_norms, mlp, _) = decoder.layers[2 * i], decoder.layers[2 * i + 1]
            q, k, v = block.attention.qkv.weight.chunk(3)
            attention.to_q.weight.copy_(turned(q))
            attention.to_k.weight.copy_(turned(k))
            attention.to_v.weight.copy_(v)
            attention.to_out.weight.copy_(block.attention.out.weight)
            scale(norms[0], block.attention_norm.weight)
            scale(mlp_norms[0], block.mlp_norm.weight)
            # Their SwiGLU has the gate last and a bias, which is set to 0.
            gate, up = block.mlp.gate_up.weight.chunk(2)
            mlp.ff[0].proj.weight.copy_(torch.cat([up, gate]))
            mlp.ff[0].proj.bias.zero_()
            mlp.ff[2].weight.copy_(block.mlp.down.weight)
    wrapper.dynamics_model.net[0].load_state_dict(ours.psi.norm.state_dict())
    wrapper.dynamics_model.net[1].load_state_dict(ours.psi.layers.state_dict())
    return wrapper


def batches(tokens):
    """Return rows of tokens as two batches of ours, one for the next-token loss and one for the latent losses.

    They run the transformer on the last token too. No target is known for it, so it is not scored; yet they count
    KL there, where both its sides are known.
    """
    following = torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    known = everywhere.clone()
    known[:, -1] = False
    return Batch(tokens, following, known, everywhere), Batch(tokens, following, everywhere, everywhere)


def terms(objective, tokens):
    for_tokens, for_latents = batches(tokens)
    latent = objective(for_latents)
    return objective(for_tokens)["next_token"], latent["next_h"], latent["kl"]


def test_the_backbone_has_their_states_and_logits(ours, tokens):
    net = theirs(ours, 1).net
    hidden = ours.backbone(tokens)
    torch.testing.assert_close(hidden, net(tokens, return_embeddings=True), **CLOSE)
    torch.testing.assert_close(ours.logits(hidden), net(tokens), **CLOSE)


def test_one_step_has_their_losses_and_gradients(ours, tokens):
    """Value by value, and the gradient of every weight but the embedding's.

    There they differ: our psi trains the embedding of the token it reads, as equation 9 has it, theirs is cut off.
    """
    wrapper = theirs(ours, 1)
    total, losses = wrapper(tokens, return_loss_breakdown=True)
    expected = [losses.ce, losses.next_latent, losses.kl]
    result = terms(ours, tokens)
    torch.testing.assert_close(list(result), expected, **CLOSE)
    sum(result).backward()
    total.backward()
    pairs = [(ours.backbone.head.weight, wrapper.net.to_logits.weight)]
    layers = wrapper.net.attn_layers.layers
    for i, block in enumerate(ours.backbone.blocks):
        pairs.append((block.attention.out.weight, layers[2 * i][1].to_out.weight))
        pairs.append((block.mlp.down.weight, layers[2 * i + 1][1].ff[2].weight))
        pairs.append((block.attention_norm.weight, layers[2 * i][0][0].g))
    pairs += zip(ours.psi.parameters(), wrapper.dynamics_model.parameters(), strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine.grad, other.grad, **CLOSE)
    assert not torch.allclose(ours.backbone.embed.weight.grad, wrapper.net.token_emb.emb.weight.grad)


def test_two_steps_are_averaged_differently(ours, tokens):
    """Ours is the mean over all pairs of a place and a step; theirs is the mean over steps of each step's mean.

    Late steps reach past the end of more rows, so their pairs weigh more in theirs. With the sums of either step told
    apart, the losses agree. (Their default weighs a step down by the losses of those before it, besides; the paper
    does not, and neither do we.)
    """
    _, theirs_of_both = theirs(ours, 2)(tokens, return_loss_breakdown=True)
    _, once, kl_once = terms(ours, tokens)
    ours.horizon = 2
    _, both, kl_both = terms(ours, tokens)
    # Rows of nine have eight pairs one step apart and seven two apart.
    for first, pooled, expected in ((once, both, theirs_of_both.next_latent), (kl_once, kl_both, theirs_of_both.kl)):
        second = (pooled * (8 + 7) - first * 8) / 7
        torch.testing.assert_close((first + second) / 2, expected, **CLOSE)
        assert not torch.allclose(pooled, expected)
