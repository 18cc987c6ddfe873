"""NextLat after the fact: a pretrained causal language model of Hugging Face as the backbone, psi added to it.

The paper names this as future work (arXiv:2511.05963): its own models are trained with the objective from the start.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nextlat_viz.models.dynamics import LatentDynamics
from nextlat_viz.models.foreign import refuse_code, require_transformers
from nextlat_viz.models.nextlat import NextLat
from nextlat_viz.models.objective import Batch


class Shape(NamedTuple):
    """What is asked of a backbone's sizes; `context` is None where the model names no longest sequence."""

    dim: int
    context: int | None
    vocabulary_size: int


class Pretrained(nn.Module):
    """A causal language model behind the part of :class:`Transformer` that objectives use.

    The hidden state is what the output head is given, after the last norm; the embedding is that of the token alone,
    without its position. Dropout stays off, in training too: a state that psi is to predict must not be noise.

    Parameters
    ----------
    module : transformers.PreTrainedModel
        In float32, and with an output head that is one matrix applied to the last hidden state.

    Raises
    ------
    ValueError
        If the model's logits are anything else, or its embeddings have another width than its states.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module
        self.train(False)
        _refuse_unusable(self.module)
        self.config = Shape(
            self.embedding.embedding_dim,
            getattr(self.module.config, "max_position_embeddings", None),
            self.embedding.num_embeddings,
        )
        self._check_head()

    @property
    def embedding(self) -> nn.Embedding:
        return cast(nn.Embedding, self.module.get_input_embeddings())

    @property
    def head(self) -> nn.Linear:
        return cast(nn.Linear, self.module.get_output_embeddings())

    def train(self, mode: bool = True) -> Pretrained:
        """Stay in evaluation mode whatever is asked."""
        return super().train(False)

    def states(
        self, tokens: Int[Tensor, "b t"], documents: Int[Tensor, "b t"] | None = None
    ) -> dict[str, Float[Tensor, "b t dim"]]:
        """Embeddings and hidden states.

        Where documents are packed into a row, positions start over in each, and attention stays inside: transformers
        makes its mask from such positions. :meth:`check_documents` says whether this model follows.
        """
        embed = self.embedding(tokens)
        places = {} if documents is None else {"position_ids": _places(documents)}
        read = self.module.base_model(inputs_embeds=embed, use_cache=False, **places)
        return {"embed": embed, "hidden": read.last_hidden_state}

    def forward(
        self, tokens: Int[Tensor, "b t"], documents: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t dim"]:
        return self.states(tokens, documents)["hidden"]

    def logits(self, hidden: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b vocabulary"]:
        """Next-token logits read from hidden states by the output head."""
        return self.head(hidden)

    @torch.no_grad()
    def check_documents(self) -> None:
        """Raise ValueError unless a document reads the same packed behind another as it does alone."""
        tokens = torch.arange(6, device=self.head.weight.device)[None] % self.config.vocabulary_size
        packed = self(tokens, (tokens * 0 + torch.arange(6, device=tokens.device) // 3))[:, 3:]
        if not torch.allclose(packed, self(tokens[:, 3:]), rtol=1e-3, atol=1e-4):
            raise ValueError(
                f"{type(self.module).__name__} reads across documents packed into a row: give one document per row, "
                "or load it with attn_implementation='sdpa'"
            )

    @torch.no_grad()
    def _check_head(self) -> None:
        """See that the states are what the head reads, and that it does no more than multiply."""
        length = min(8, self.config.context or 8)
        tokens = torch.arange(length, device=self.head.weight.device)[None] % self.config.vocabulary_size
        expected = self.module(input_ids=tokens, use_cache=False).logits
        hidden = self(tokens)
        if hidden.shape[-1] != self.config.dim:
            raise ValueError(
                f"{type(self.module).__name__} has embeddings of width {self.config.dim} and hidden states of width "
                f"{hidden.shape[-1]}; psi needs them alike"
            )
        capped = getattr(self.module.config, "final_logit_softcapping", None)
        if capped or not torch.allclose(F.linear(hidden, self.head.weight), expected, rtol=1e-4, atol=1e-5):
            raise ValueError(
                f"the logits of {type(self.module).__name__} are not its output matrix times its last hidden state "
                "(they are scaled or capped); the KL of NextLat is defined for those that are"
            )


class PostHoc(NextLat):
    """NextLat on a pretrained model. Losses are those of :class:`NextLat`, term by term.

    psi starts as "no change": its last layer is zero, so that a transition error starts from 1, and the first steps
    do not pull a trained model towards the guesses of an untrained psi.

    Parameters
    ----------
    backbone : Pretrained
    horizon, lambda_h, lambda_kl, psi_width, psi_layers : as in :class:`NextLat`.
    full : whether the model is trained too; with False psi alone is.
    """

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
    ) -> None:
        nn.Module.__init__(self)
        self.backbone = backbone.requires_grad_(full)
        self.horizon, self.lambda_h, self.lambda_kl = horizon, lambda_h, lambda_kl
        self.token_term, self.stop_target, self.freeze_head = "kl", True, True
        self.psi = LatentDynamics(backbone.config.dim, psi_width, psi_layers)
        last = cast(nn.Linear, self.psi.layers[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def trained(self) -> nn.ParameterList:
        """What is trained, each once: a head tied to the embedding is one parameter."""
        return nn.ParameterList(parameter for parameter in self.parameters() if parameter.requires_grad)

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Mean losses of a batch, and sums of squares of what psi misses and of what "no change" misses."""
        states = self.backbone.states(batch.inputs, batch.documents)
        hidden = states["hidden"]
        predicted = self.psi.rollout(hidden, states["embed"], self.horizon)
        next_token, kl = self.token_losses(hidden, hidden, predicted, batch)
        inside = batch.inside(1)[..., None]
        return {
            "next_token": next_token,
            "next_h": self.state_loss(hidden, predicted, batch),
            "kl": kl,
            "missed": ((predicted[0] - hidden[:, 1:]) * inside).square().sum(),
            "moved": (hidden.diff(dim=1) * inside).square().sum(),
        }


def pretrained(model: Any) -> tuple[Pretrained, str]:
    """A model given as a module, or loaded by its folder or its name on the Hub; a module is copied.

    Raises
    ------
    ImportError
        If transformers is not installed; the message says how to install it.
    ValueError
        If the model needs code of its own, cannot be loaded from safetensors, or is of a kind psi cannot be added to.
    """
    if not isinstance(model, str | Path):
        if not all(hasattr(model, name) for name in ("get_output_embeddings", "base_model", "save_pretrained")):
            raise ValueError(
                f"model must be a causal language model of transformers, a folder or a name, got {type(model).__name__}"
            )
        refuse_code(model.config.to_dict(), type(model).__name__)
        name = Path(str(getattr(model.config, "_name_or_path", "") or "")).name or type(model).__name__
        return Pretrained(copy.deepcopy(model)), name
    name = str(model).removeprefix("hf:")
    return Pretrained(load_module(name)), Path(name).name


def load_module(name: str) -> nn.Module:
    """Load a causal language model in float32, from safetensors and data alone."""
    transformers = require_transformers()
    try:
        if Path(name).is_dir():
            config = json.loads(Path(name, "config.json").read_text(encoding="utf-8"))
        else:
            config, _ = transformers.PretrainedConfig.get_config_dict(name)
        refuse_code(config, name)
        with quiet():
            return cast(
                nn.Module,
                transformers.AutoModelForCausalLM.from_pretrained(
                    name, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
                ),
            )
    except OSError as error:
        raise ValueError(
            f"model={name!r} cannot be loaded: give a folder with config.json and safetensors, or a name on the "
            f"Hugging Face Hub ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the bars that transformers shows for every file off the screen."""
    logging = require_transformers().utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def weights_sha256(module: nn.Module) -> str:
    """Hash of a module's weights: names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _refuse_unusable(module: Any) -> None:
    """Raise where psi cannot be added, before the model is run."""
    kind = type(module).__name__
    head, embedding = module.get_output_embeddings(), module.get_input_embeddings()
    if getattr(module.config, "is_encoder_decoder", False) or not isinstance(head, nn.Linear):
        raise ValueError(f"{kind} is no causal language model with a linear output head; use one, such as GPT-2")
    if getattr(head, "bias", None) is not None:
        raise ValueError(f"{kind} has an output head with a bias, which the KL of NextLat does not read: use another")
    if not isinstance(embedding, nn.Embedding):
        raise ValueError(f"{kind} has no table of token embeddings for psi to read")
    if wrong := {str(one.dtype) for one in module.parameters()} - {"torch.float32"}:
        raise ValueError(
            f"{kind} has weights in {', '.join(sorted(wrong))}: call model.float() first, and train with "
            "precision='bf16-mixed' where speed matters"
        )


def _places(documents: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """Place of each token in its document, from 0."""
    at = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    starts = torch.zeros_like(at)
    starts[:, 1:] = torch.where(documents[:, 1:] != documents[:, :-1], at[:, 1:], 0)
    return at - starts.cummax(dim=1).values
