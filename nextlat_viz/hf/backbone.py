"""A pretrained causal language model of Hugging Face as the backbone of NextLat, with psi added to it.

The paper names this as future work (arXiv:2511.05963): its models are trained with the objective from the start.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.hf.load import blocks_of, is_quantised, load_module, name_of, refuse_code, require_transformers
from nextlat_viz.models import Batch, LatentDynamics, NextLat
from nextlat_viz.models.attention import fits
from nextlat_viz.training.trained import HF_PREFIX


class Shape(NamedTuple):
    """Sizes of a backbone; `context` is None if the model states no limit."""

    dim: int
    context: int | None
    vocabulary_size: int


class Pretrained(nn.Module):
    """A causal language model with the interface of :class:`Transformer` that objectives use.

    The hidden state is the input of the output head, after the last norm; the embedding is that of the token alone,
    without its position. Dropout is off even in training: psi cannot predict the noise of a state.

    Parameters
    ----------
    module : transformers.PreTrainedModel
        In float32, and with an output head that is one matrix applied to the last hidden state.

    Raises
    ------
    ValueError
        If the logits are computed in another way, or embeddings and states differ in width.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module
        self.train(False)
        _refuse_unusable(self.module)
        self.config = Shape(
            self.embed.embedding_dim,
            getattr(self.module.config, "max_position_embeddings", None),
            self.embed.num_embeddings,
        )
        self._check_head()

    # The tokenizer of a pretrained model adds the start token itself, if the model knows one.
    start: None = None
    offset = 0

    def started(self, tokens: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
        """Return the tokens as they are."""
        return tokens

    @property
    def embed(self) -> nn.Embedding:
        return cast(nn.Embedding, self.module.get_input_embeddings())

    @property
    def head(self) -> nn.Linear:
        return cast(nn.Linear, self.module.get_output_embeddings())

    @property
    def blocks(self) -> nn.Module:
        """The blocks, or the whole model if they are not in one list."""
        return blocks_of(self.module) or self.module

    def cache(self, batch_size: int) -> PretrainedCache:
        """Return an empty cache for `batch_size` rows."""
        return PretrainedCache(batch_size, self.config.context, self.head.weight.device)

    def train(self, mode: bool = True) -> Pretrained:
        """Stay in evaluation mode, whatever `mode` is."""
        return super().train(False)

    def states(
        self,
        tokens: Int[Tensor, "b t"],
        documents: Int[Tensor, "b t"] | None = None,
        cache: PretrainedCache | None = None,
        counts: Int[Tensor, " b"] | None = None,
    ) -> dict[str, Float[Tensor, "b t dim"]]:
        """Return the embeddings, ``"embed"``, and the hidden states, ``"hidden"``.

        With a cache the tokens follow those in it, and the first `counts` of each row are real, as in
        :meth:`Transformer.forward`.

        If documents are packed into a row, positions start again in each, and attention stays inside a document:
        transformers makes its mask from such positions. :meth:`check_documents` tests that this model does so.
        """
        embed = self.embed(tokens)
        options: dict[str, Any] = {"use_cache": False}
        if cache is not None:
            options = {"use_cache": True, **cache.begin(tokens.shape[1], counts)}
        elif documents is not None:
            options["position_ids"] = _positions(documents)
        output = self.module.base_model(inputs_embeds=embed, **options)
        return {"embed": embed, "hidden": output.last_hidden_state}

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        documents: Int[Tensor, "b t"] | None = None,
        cache: PretrainedCache | None = None,
        counts: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b t dim"]:
        return self.states(tokens, documents, cache, counts)["hidden"]

    def logits(self, hidden: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b vocabulary"]:
        """Next-token logits read from hidden states by the output head."""
        return self.head(hidden)

    @torch.no_grad()
    def check_documents(self) -> None:
        """Raise ValueError unless a document has the same states after another one in its row as alone."""
        tokens = torch.arange(6, device=self.head.weight.device)[None] % self.config.vocabulary_size
        packed = self(tokens, (tokens * 0 + torch.arange(6, device=tokens.device) // 3))[:, 3:]
        if not torch.allclose(packed, self(tokens[:, 3:]), rtol=1e-3, atol=1e-4):
            raise ValueError(
                f"{type(self.module).__name__} reads across documents packed into a row: give one document per row, "
                "or load it with attn_implementation='sdpa'"
            )

    @torch.no_grad()
    def _check_head(self) -> None:
        """Check that the states are the input of the head, and that the head only multiplies by its matrix."""
        length = min(8, self.config.context or 8)
        tokens = torch.arange(length, device=self.head.weight.device)[None] % self.config.vocabulary_size
        expected = self.module(input_ids=tokens, use_cache=False).logits
        hidden = self(tokens)
        if hidden.shape[-1] != self.config.dim:
            raise ValueError(
                f"{type(self.module).__name__} has embeddings of width {self.config.dim} and hidden states of width "
                f"{hidden.shape[-1]}; psi needs equal widths"
            )
        capped = getattr(self.module.config, "final_logit_softcapping", None)
        if capped or not torch.allclose(F.linear(hidden, self.head.weight), expected, rtol=1e-4, atol=1e-5):
            raise ValueError(
                f"the logits of {type(self.module).__name__} are not its output matrix times its last hidden state "
                "(they are scaled or capped); the KL of NextLat is defined for those that are"
            )


class PretrainedCache:
    """Keys and values of the tokens read so far, with the interface of :class:`KVCache`.

    transformers keeps them in slots that all rows share. A slot that holds padding, or a token that was dropped, is
    masked in its row.

    Attributes
    ----------
    lengths : (b,) integers
        Tokens in each row, on the CPU.
    """

    def __init__(self, batch_size: int, context: int | None, device: torch.device) -> None:
        self._layers = require_transformers().DynamicCache()
        self._real = torch.zeros(batch_size, 0, dtype=torch.bool, device=device)
        self._context = context

    @property
    def lengths(self) -> Int[Tensor, " b"]:
        return self._real.sum(dim=1).cpu()

    def begin(self, t: int, counts: Int[Tensor, " b"] | None) -> dict[str, Any]:
        """Add t tokens to each row, or the first `counts` of them; return the arguments of the forward pass."""
        lengths, columns = self._real.sum(dim=1, keepdim=True), torch.arange(t, device=self._real.device)
        real = columns.expand(len(lengths), t) < (t if counts is None else counts.to(columns.device)[:, None])
        positions = lengths + columns
        if self._context is not None:
            fits(int((lengths[:, 0] + real.sum(dim=1)).max()) if len(lengths) else t, self._context)
            positions = positions.clamp(max=self._context - 1)
        self._real = torch.cat([self._real, real], dim=1)
        return {"past_key_values": self._layers, "attention_mask": self._real.long(), "position_ids": positions}

    def truncate(self, length: int | Int[Tensor, " b"]) -> None:
        """Keep the first `length` tokens of every row, or a number for each row."""
        lengths = torch.as_tensor(length).to(self._real.device).expand(len(self._real))
        self._real = self._real & (self._real.cumsum(dim=1) <= lengths[:, None])
        slots = self._real.any(dim=0).nonzero()
        used = int(slots.max()) + 1 if len(slots) else 0
        if used < self._real.shape[1]:
            self._layers.crop(used - self._real.shape[1])
            self._real = self._real[:, :used]

    def keep(self, rows: Bool[Tensor, " b"] | Int[Tensor, " n"]) -> None:
        """Keep some of the rows: a mask, or indices; a row may occur several times."""
        index = rows.to(self._real.device)
        index = index.nonzero()[:, 0] if index.dtype == torch.bool else index
        self._layers.batch_select_indices(index)
        self._real = self._real[index]


class ScaledDynamics(LatentDynamics):
    """psi with the embedding scaled to the size of the hidden state, so that its LayerNorm leaves both of equal size.

    The embeddings of a pretrained model can be hundreds of times smaller than its hidden states: psi would hardly see
    the token. The scale is fixed before training and saved with psi.
    """

    scale: Tensor

    def __init__(self, dim: int, width: int, layers: int = 3) -> None:
        super().__init__(dim, width, layers)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, hidden: Float[Tensor, "*b dim"], embedding: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b dim"]:
        return super().forward(hidden, embedding * self.scale)


class PostHoc(NextLat):
    """NextLat on a pretrained model, with the losses of :class:`NextLat` over all tokens, or over those of `restrict`.

    psi starts as "no change": its last layer is zero. So the transition error starts at 1, and the first steps do not
    pull a trained model towards the predictions of an untrained psi.

    Parameters
    ----------
    backbone : Pretrained
    horizon, lambda_h, lambda_kl, psi_width, psi_layers : as in :class:`NextLat`.
    full : whether the model is trained too; False trains psi alone.
    tokens : only the first of the model's tokens are predicted, those of its world; default all.
    """

    psi: ScaledDynamics
    _allowed: Tensor
    backbone: Pretrained  # type: ignore[assignment]

    def __init__(
        self,
        backbone: Pretrained,
        horizon: int,
        lambda_h: float,
        lambda_kl: float,
        psi_width: int,
        psi_layers: int = 3,
        full: bool = False,
        tokens: int | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.tokens = tokens
        # A buffer, so that it moves with the model to another device.
        self.register_buffer("_allowed", None, persistent=False)
        self._allowed_head: nn.Linear | None = None
        self.backbone = backbone.requires_grad_(full)
        self.horizon, self.lambda_h, self.lambda_kl = horizon, lambda_h, lambda_kl
        self.token_term, self.stop_target, self.freeze_head = "kl", True, True
        self.psi = ScaledDynamics(backbone.config.dim, psi_width, psi_layers)
        last = cast(nn.Linear, self.psi.layers[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        # Parameters without a loss never get moments in the optimiser, which a continued run would look for.
        self.psi.requires_grad_(bool(lambda_h or lambda_kl))

    def logits(self, hidden: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b vocabulary"]:
        """Next-token logits of the tokens of its world."""
        return self.backbone.logits(hidden)[..., : self.tokens]

    @torch.no_grad()
    def scale_tokens(self, batch: Batch) -> None:
        """Scale psi's embeddings to the size that hidden states have in a batch."""
        states = self.backbone.states(batch.inputs, batch.documents)
        state, token = (states[name].square().mean().sqrt() for name in ("hidden", "embed"))
        self.psi.scale.copy_(state / token)

    def restrict(self, tokens: Int[Tensor, " n"]) -> None:
        """Draft only these tokens. If psi is trained alone, L_KL compares only these too.

        With tens of thousands of tokens the output head is most of psi's cost, and a corpus uses few of them.
        Verification corrects a draft that should have been another token.
        """
        tokens = tokens.unique().to(self.backbone.head.weight.device)
        weight = self.backbone.head.weight[tokens].detach()
        head = nn.Linear(weight.shape[1], len(tokens), bias=False, device="meta")
        head.load_state_dict({"weight": weight}, assign=True)
        self._allowed, self._allowed_head = tokens, head.requires_grad_(False)

    @property
    def draft_head(self) -> nn.Module:
        return self._allowed_head or self.backbone.head

    def draft_logits(self, hidden: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b vocabulary"]:
        if self._allowed_head is None:
            return self.logits(hidden)
        size = self.backbone.config.vocabulary_size if self.tokens is None else self.tokens
        drafted = self._allowed_head(hidden)
        logits = drafted.new_full((*hidden.shape[:-1], size), -torch.inf)
        logits[..., self._allowed] = drafted
        return logits

    def token_losses(
        self,
        hidden: Float[Tensor, "b t dim"],
        target: Float[Tensor, "b t dim"],
        predicted: list[Float[Tensor, "b _s dim"]],
        batch: Batch,
        head: nn.Linear | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        if head is None and self._allowed_head is not None and not self.backbone.head.weight.requires_grad:
            # L_next_token is over these tokens only too: it does not measure the model, and nothing is trained by it.
            targets = torch.searchsorted(self._allowed, batch.targets.contiguous()).clamp(max=len(self._allowed) - 1)
            batch, head = replace(batch, targets=targets), self._allowed_head
        return super().token_losses(hidden, target, predicted, batch, head)

    def trained(self) -> nn.ParameterList:
        """Return the trained parameters, each once: a head tied to the embedding is one parameter."""
        return nn.ParameterList(parameter for parameter in self.parameters() if parameter.requires_grad)

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Return mean losses of a batch, and summed squared errors of psi ("missed") and of "no change" ("moved")."""
        states = self.backbone.states(batch.inputs, batch.documents)
        hidden = states["hidden"]
        predicted = self.psi.rollout(hidden, states["embed"], self.horizon)
        # Over all tokens, even if psi is trained on some.
        next_token, kl = self.token_losses(hidden, hidden, predicted, batch, self.backbone.head)
        inside = batch.inside(1)[..., None]
        return {
            "next_token": next_token,
            "next_h": self.state_loss(hidden, predicted, batch),
            "kl": kl,
            "missed": ((predicted[0] - hidden[:, 1:]) * inside).square().sum(),
            "moved": (hidden.diff(dim=1) * inside).square().sum(),
        }


def pretrained(model: Any) -> tuple[Pretrained, str]:
    """Return a model as a backbone, and its name: a copy of a module, or loaded from a folder or the Hub.

    Raises ValueError if it needs its own code, has no safetensors, or is of a kind that psi cannot be added to.
    """
    if not isinstance(model, str | Path):
        if not all(hasattr(model, name) for name in ("get_output_embeddings", "base_model", "save_pretrained")):
            raise ValueError(
                f"model must be a causal language model of transformers, a folder or a name, got {type(model).__name__}"
            )
        refuse_code(model.config.to_dict(), type(model).__name__)
        return Pretrained(copy.deepcopy(model)), name_of(model)
    name = str(model).removeprefix(HF_PREFIX)
    return Pretrained(load_module(name, dtype=torch.float32)), Path(name).name


def weights_sha256(module: nn.Module) -> str:
    """Hash a module's weights: names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _refuse_unusable(module: Any) -> None:
    """Raise ValueError if psi cannot be added. Does not run the model."""
    kind = type(module).__name__
    if is_quantised(module):
        raise ValueError(
            f"{kind} has quantised weights, whose states psi would learn with their rounding errors: give the model it "
            "was made from, in float32"
        )
    head, embedding = module.get_output_embeddings(), module.get_input_embeddings()
    if getattr(module.config, "is_encoder_decoder", False) or not isinstance(head, nn.Linear):
        raise ValueError(f"{kind} is no causal language model with a linear output head: use another, such as GPT-2")
    if getattr(head, "bias", None) is not None:
        raise ValueError(f"{kind} has an output head with a bias, which the KL of NextLat ignores: use another model")
    if not isinstance(embedding, nn.Embedding):
        raise ValueError(f"{kind} has no table of token embeddings for psi to read")
    if wrong := {str(parameter.dtype) for parameter in module.parameters()} - {"torch.float32"}:
        raise ValueError(
            f"{kind} has weights in {', '.join(sorted(wrong))}: call model.float() first, and train with "
            "precision='bf16-mixed' where speed matters"
        )


def _positions(documents: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """Return the position of each token in its document, from 0."""
    columns = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    starts = torch.zeros_like(columns)
    starts[:, 1:] = torch.where(documents[:, 1:] != documents[:, :-1], columns[:, 1:], 0)
    return columns - starts.cummax(dim=1).values
