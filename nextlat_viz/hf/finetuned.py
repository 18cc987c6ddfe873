"""Fine-tuned models: a Hugging Face model, psi and a card, loaded only if every hash agrees."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from nextlat_viz import io
from nextlat_viz.display import table
from nextlat_viz.errors import CheckpointError
from nextlat_viz.hf.backbone import PostHoc, Pretrained, ScaledDynamics
from nextlat_viz.hf.card import README, FinetuneCard, readme_text
from nextlat_viz.hf.corpus import Corpus
from nextlat_viz.hf.hub import download, is_name
from nextlat_viz.hf.load import load_module, load_tokenizer
from nextlat_viz.hf.loaded import HubModel, LoadedModel, load_hf
from nextlat_viz.models.torch_state import torch_defaults
from nextlat_viz.training.card import CARD, read_card, sha256_of
from nextlat_viz.training.checkpoint import METRICS, Checkpoint, world_of_card
from nextlat_viz.training.trained import HF_PREFIX
from nextlat_viz.worlds import Episodes, World

if TYPE_CHECKING:
    import pandas as pd

MODEL, PSI, HELD_OUT = "model", "psi.safetensors", "held_out.safetensors"


@dataclass(frozen=True, eq=False)
class Finetuned(HubModel):
    """A pretrained model with psi added to it. It can be used wherever a checkpoint can.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        In evaluation mode on the CPU; ``AutoModelForCausalLM.from_pretrained(folder / "model")`` reads it too.
    psi : ScaledDynamics
    card : FinetuneCard
    folder : Path
        With the files of both.
    tokenizer : transformers tokenizer or None
        The model's, if the card names one.
    is_trained : bool
        False for random weights, as `untrained` gives them.
    """

    model: nn.Module
    psi: ScaledDynamics
    card: FinetuneCard
    folder: Path
    tokenizer: Any = None
    is_trained: bool = True

    objective = "nextlat"

    @property
    def module(self) -> nn.Module:  # type: ignore[override]
        return self.model

    @property
    def name(self) -> str:
        return f"{self.card.model['name']}/{self.card.config.mode}/seed{self.card.seed}"

    @property
    def label(self) -> str:
        """Name in figures: the pretrained model's, and whether it is trained."""
        return f"{self.card.model['name']} + psi" + ("" if self.is_trained else " (untrained)")

    @property
    def seed(self) -> int:
        return self.card.seed

    @property
    def step(self) -> int:
        return self.card.config.steps if self.is_trained else 0

    @property
    def snapshots(self) -> list[int]:
        return [self.card.config.steps]

    @property
    def weights_sha256(self) -> str:
        """Hash that identifies the weights, psi's included."""
        return self.card.card_sha256 if self.is_trained else f"untrained-{self.card.card_sha256}"

    @property
    def reads(self) -> int:
        """Tokens of a sequence that it read in training: the last is only predicted."""
        return int(self.card.corpus["length"]) - 1

    @cached_property
    def world(self) -> World:
        """The world it was trained on; or the tokens of the model and the sequences held out of its corpus."""
        if "world" in self.card.corpus:
            return world_of_card(self.card.corpus["world"], self.folder)
        held_out = None
        # Folders of earlier versions do not have the file.
        if HELD_OUT in self.card.files:
            content = _checked(self.folder, self.card, HELD_OUT).read_bytes()
            stored = {name: values.numpy() for name, values in load_tensors(content).items()}
            documents = {name: values for name, values in stored.items() if name == "document"}
            held_out = Episodes(stored["tokens"], documents, stored["loss_mask"], stored["length"])
        return Corpus(self.name, self.card.model["vocabulary_size"], self.tokenizer, held_out)

    @cached_property
    def network(self) -> PostHoc:
        """The model and psi as an objective, which predicts only the tokens of its world.

        psi drafts only the tokens of the held-out sequences, if those are fewer than half of the vocabulary.
        """
        options = self.card.config.model_dump(include={"horizon", "lambda_h", "lambda_kl", "psi_width", "psi_layers"})
        backbone = Pretrained(self.model)
        with torch.device("meta"):
            network = PostHoc(backbone, **options, full=True, tokens=len(self.world.vocabulary))
        network.psi = self.psi
        held_out = getattr(self.world, "held_out", None)
        if held_out is not None:
            used = torch.from_numpy(np.unique(held_out.tokens[held_out.tokens >= 0]))
            if len(used) < len(self.world.vocabulary) / 2:
                network.restrict(used)
        return network.eval()

    def at(self, step: int) -> Finetuned:
        if step not in (0, self.step):
            raise ValueError(f"step={step}: {self.name} keeps only the weights of steps 0 and {self.step}")
        return self if step == self.step else self.untrained()

    @torch_defaults()
    def untrained(self) -> Finetuned:
        """The same model and psi with random weights: the control for every probe."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.card.seed)
            psi = ScaledDynamics(self.card.model["dim"], self.card.config.psi_width, self.card.config.psi_layers)
        psi.scale.copy_(self.psi.scale)
        return replace(self, model=self.random_module(self.card.seed), psi=psi.eval(), is_trained=False)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Metrics on held-out sequences, a row per validation; the first is before any step."""
        import pandas as pd

        return pd.read_csv(_checked(self.folder, self.card, METRICS))

    @torch.no_grad()
    def states(self, tokens: Int[Tensor, "b t"]) -> dict[str, Float[Tensor, "b t dim"]]:
        """Return "embed", the embedding of each token, and "hidden", the state after it."""
        return self.network.backbone.states(tokens)

    @torch.no_grad()
    def predict(self, hidden: Float[Tensor, "*b dim"], embedding: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b dim"]:
        """Next hidden state, from the current one and the embedding of the token read next."""
        return self.psi(hidden, embedding)

    @torch.no_grad()
    def rollout(self, hidden: Float[Tensor, "b dim"], tokens: Int[Tensor, "b k"]) -> Float[Tensor, "b k dim"]:
        """Return the states of psi as it reads `tokens` from `hidden` on, without running the model."""
        embeddings: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        return self.psi.read(hidden, embeddings(tokens))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Copy the whole folder, checked against its card, to another place.

        Raises
        ------
        CheckpointError
            If a file differs from the card, is named outside the folder, or the target holds another model.
        """
        target = io.resolve(folder, "folder")
        if (target / CARD).exists():
            if _read_card(target).card_sha256 == self.card.card_sha256:
                return target
            raise CheckpointError(f"folder={str(target)!r} holds another model: choose another folder, or delete it")
        _check_files(self.folder, self.card)
        # The user may have named a licence in it.
        readme = self.folder / README
        io.write(target / README, readme.read_bytes() if readme.is_file() else readme_text(self.card))
        for name in (*self.card.files, CARD):
            io.write(_file(target, name), _file(self.folder, name).read_bytes())
        return target

    def _repr_html_(self) -> str:
        card = self.card
        return table(
            f"{card.model['name']} + psi",
            {
                "trained": "psi alone" if card.config.mode == "psi" else "the model with psi",
                "parameters": f"{card.parameters:,}",
                "corpus": "{kind}: {train:,} sequences, {held_out:,} held out".format(**card.corpus),
                "steps": f"{card.config.steps:,}",
                **{
                    name: f"{card.before[name]:.4f} before, {value:.4f} now"
                    for name, value in card.metrics.items()
                    if name in card.before
                },
                "made by": card.command,
            },
        )

    def __repr__(self) -> str:
        return f"Finetuned({self.card.model['name']!r}, mode={self.card.config.mode!r}, metrics={self.card.metrics})"


@torch_defaults()
def load_finetuned(folder: str | os.PathLike[str]) -> Finetuned:
    """Load a fine-tuned model, from safetensors and JSON alone.

    Raises
    ------
    ImportError
        If transformers is not installed.
    CheckpointError
        If a file is missing, altered or not named in the card, or the format is another.

    Examples
    --------
    >>> load_finetuned("no/such/folder")
    Traceback (most recent call last):
    ...
    nextlat_viz.errors.CheckpointError: no/such/folder holds no fine-tuned model: it has no card.json...
    """
    folder = io.as_path(folder, "folder")
    card = _read_card(folder)
    _check_files(folder, card)
    try:
        weights = load_tensors((folder / PSI).read_bytes())
        if card.config.psi_layers > len(weights):
            raise ValueError(f"psi_layers={card.config.psi_layers} are more than its {len(weights)} weights")
        # A card may ask for any size: on the meta device psi takes no memory before its shapes are compared.
        with torch.device("meta"):
            psi = ScaledDynamics(card.model["dim"], card.config.psi_width, card.config.psi_layers)
        # Folders of earlier versions have no scale.
        weights.setdefault("scale", torch.ones(()))
        psi.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
        module = load_module(str(folder / MODEL), dtype=torch.float32)
    except ImportError:
        raise
    # A damaged model fails in many ways inside safetensors, torch and transformers.
    except Exception as error:
        raise CheckpointError(f"{folder} does not hold the model its card describes: {error}") from error
    # No other tokenizer can be there: `_check_files` refuses files that the card does not name.
    tokenizer = load_tokenizer(str(folder / MODEL)) if f"{MODEL}/tokenizer_config.json" in card.files else None
    return Finetuned(module.eval(), psi.eval(), card, folder, tokenizer)


def load_by_name(name: str) -> Finetuned | LoadedModel | Checkpoint:
    """Load ``"hf:<folder or name>"``: a fine-tuned model, a checkpoint or a language model.

    Raises CheckpointError if it is neither a folder nor a name on the Hub, or `nextlat_viz.hf.hub.download` raises it.
    """
    place = name.removeprefix(HF_PREFIX)
    folder = Path(place).expanduser()
    if folder.is_dir():
        return load_finetuned(folder) if (folder / CARD).is_file() else load_hf(name)
    if is_name(place):
        checkpoint = download(place)
        return load_hf(name) if checkpoint is None else checkpoint
    if set(place) & set("/\\~:") or place.startswith("."):
        raise CheckpointError(
            f"{name!r} is neither a folder nor a name on the Hugging Face Hub: give a folder that exists, or "
            "'hf:user/name'"
        )
    return load_hf(name)


def held_out_bytes(held_out: Episodes) -> bytes:
    """Return the held-out sequences as a safetensors file."""
    arrays = {"tokens": held_out.tokens, "loss_mask": held_out.loss_mask, "length": held_out.length}
    arrays |= {name: held_out.states[name] for name in ("document",) if name in held_out.states}
    return save_tensors({name: torch.from_numpy(values.copy()) for name, values in arrays.items()})


def _read_card(folder: Path) -> FinetuneCard:
    if not (folder / CARD).is_file():
        raise CheckpointError(
            f"{folder.as_posix()} holds no fine-tuned model: it has no {CARD}. Where a run was interrupted, make the "
            "same call again to finish it"
        )
    return read_card(folder, FinetuneCard)


def _check_files(folder: Path, card: FinetuneCard) -> None:
    """Compare every file with the card; refuse other files that loading the model would read."""
    if missing := {PSI, METRICS} - card.files.keys():
        raise CheckpointError(f"{folder / CARD} has no hash of {', '.join(sorted(missing))}. Get the model again.")
    present = {path.relative_to(folder).as_posix() for path in (folder / MODEL).rglob("*") if path.is_file()}
    if unlisted := sorted(present - card.files.keys()):
        raise CheckpointError(f"{folder / unlisted[0]} is no file of this model's card: remove it")
    for name in card.files:
        _checked(folder, card, name)


def _checked(folder: Path, card: FinetuneCard, name: str) -> Path:
    """Return the path of a file, after comparing it with the hash in its card."""
    path = _file(folder, name)
    if not path.is_file():
        raise CheckpointError(f"{path} is missing although the card names it. Get the model again.")
    if sha256_of(path) != card.files[name]:
        inner = name.startswith(f"{MODEL}/")
        advice = "psi was trained on the model as it was: restore it, or fine-tune again" if inner else "get it again"
        raise CheckpointError(f"{path} is truncated or altered: the card has another hash; {advice}")
    return path


def _file(folder: Path, name: str) -> Path:
    """Return the path of a file that a card names: in the folder, or in its folder ``model``, and nowhere else."""
    inner = name.removeprefix(f"{MODEL}/")
    try:
        return io.inside(folder if inner == name else folder / MODEL, inner)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
