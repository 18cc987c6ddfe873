"""Readers run a model and return its states: our checkpoints directly, other modules through hooks."""

from __future__ import annotations

import fnmatch
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.errors import LatentsError, one_of, unknown
from nextlat_viz.hf.load import blocks_of, name_of
from nextlat_viz.latents.facts import MOST_TOKENS
from nextlat_viz.latents.table import HIDDEN
from nextlat_viz.models.torch_state import device_of, torch_defaults
from nextlat_viz.training.checkpoint import Checkpoint
from nextlat_viz.training.trained import TrainedModel

States: TypeAlias = dict[str, Float[Tensor, "b columns width"]]
Call: TypeAlias = Callable[[Any, Tensor, Tensor], Any]


class LatentsReader:
    """The interface of a model for extraction.

    Attributes
    ----------
    module : nn.Module
    sites : list of str
        Sites to read, in the order of the table; ``"hidden"``, which becomes ``X``, is last.
    meta : dict
        Description of the model, as `table.origin` takes it.
    context : int or None
        Most tokens it can read.
    vocabulary_size : int or None
        Number of tokens it knows.
    offset : int
        Columns of the states before token 1: 1 for a model with a start token.
    """

    module: nn.Module
    sites: list[str]
    meta: dict[str, Any]
    context: int | None = None
    vocabulary_size: int | None = None
    offset: int = 0

    @cached_property
    def weights(self) -> str:
        """Hash of the model: its class, parameters and buffers."""
        return weights_of(self.module)

    def read(
        self, tokens: Int[Tensor, "b t"], real: Bool[Tensor, "b t"], documents: Int[Tensor, "b t"] | None
    ) -> tuple[States, Float[Tensor, "b columns vocabulary"] | None]:
        """Return the state at every site, and the next-token logits unless the vocabulary is too large to keep them."""
        raise NotImplementedError

    @contextmanager
    def ready(self, device: torch.device | str | None) -> Iterator[torch.device]:
        """Put the model in evaluation mode on a device, without gradients; restore it afterwards."""
        first = next(self.module.parameters(), next(self.module.buffers(), torch.zeros(0)))
        home, training = first.device, [part for part in self.module.modules() if part.training]
        where = home if device is None else device_of(device)
        try:
            if where != home:
                self.module.to(where)
            self.module.eval()
            with torch.no_grad():
                yield where
        finally:
            if where != home:
                self.module.to(home)
            # One by one: some parts may have been in evaluation mode before.
            for part in training:
                part.training = True


class CheckpointReader(LatentsReader):
    """Reads a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, sites: str | Sequence[str]) -> None:
        self.module, self._backbone = checkpoint.model, checkpoint.model.backbone
        known = self._backbone.sites
        names = known if sites == "all" else [sites] if isinstance(sites, str) else list(sites)
        for name in names:
            one_of("site", name, known)
        self.sites = [name for name in known if name in names or name == HIDDEN]
        self.context, self.offset = self._backbone.config.context, self._backbone.offset
        self.vocabulary_size = len(checkpoint.world.vocabulary)
        self.meta = {
            "card": checkpoint.card.model_dump_json(),
            "weights_sha256": checkpoint.weights_sha256,
            "label": checkpoint.label,
            "name": checkpoint.name,
            "step": checkpoint.step,
        }

    @contextmanager
    def ready(self, device: torch.device | str | None) -> Iterator[torch.device]:
        with torch_defaults(), super().ready(device) as where:
            yield where

    def read(
        self, tokens: Int[Tensor, "b t"], real: Bool[Tensor, "b t"], documents: Int[Tensor, "b t"] | None
    ) -> tuple[States, Float[Tensor, "b columns vocabulary"] | None]:
        if documents is not None and self.offset:
            documents = torch.cat([documents[:, :1], documents], dim=1)
        states = self._backbone.states(self._backbone.started(tokens), documents)
        small = len(self._backbone.head.weight) <= MOST_TOKENS
        logits = self.module.logits(states[HIDDEN]) if small else None  # type: ignore[operator]
        return {name: states[name] for name in self.sites}, logits


@dataclass(frozen=True)
class Place:
    """Where a state is read: the output of a submodule, or its first input if `is_input`."""

    module: nn.Module
    is_input: bool = False


class _Enough(Exception):
    """Raised to end a forward pass when all sites have been read."""


class ModuleReader(LatentsReader):
    """Reads any module through hooks on its submodules.

    Parameters
    ----------
    sites : str or sequence of str
        Names as in ``module.named_modules()``; patterns such as ``"h.*"`` take all that match, in the model's order.
    hidden : str, optional
        Which of them becomes ``X``; default the last.
    call : callable, optional
        ``call(module, tokens, real)`` runs the model on (B, T) tokens; real is False on padding.
    name : str, optional
        Name of the model in tables and figures.
    trained : TrainedModel, optional
        The model that the module belongs to. Its hash goes into the table, so that analyses can check that they run the
        same model.
    """

    def __init__(
        self,
        module: nn.Module,
        sites: str | Sequence[str],
        hidden: str | None = None,
        call: Call | None = None,
        name: str | None = None,
        trained: TrainedModel | None = None,
    ) -> None:
        places = self.places(module)
        names = self._chosen(module, sites, list(places))
        self._hidden = names[-1] if hidden is None else self._chosen(module, hidden, list(places))[-1]
        if HIDDEN in names and self._hidden != HIDDEN:
            raise LatentsError(f"site {HIDDEN!r} has the name of X in a table: give hidden={HIDDEN!r} to read it")
        self.module = module
        self.sites = [*(site for site in names if site != self._hidden), HIDDEN]
        self._places = {site: places[site] for site in dict.fromkeys([*names, self._hidden])}
        self._call = call or self.call
        self._order_known = False
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        label = name or type(module).__name__
        self.meta = {
            "card": json.dumps({"class": kind}),
            "weights_sha256": self.weights if trained is None else trained.weights_sha256,
            "label": label,
            "name": label,
            "step": 0,
        }
        if self._hidden != HIDDEN:
            self.meta["hidden_site"] = self._hidden

    def places(self, module: nn.Module) -> dict[str, Place]:
        """Return every site of a module: its submodules, and hook points of TransformerLens by all their names."""
        known = {name: Place(part) for name, part in module.named_modules() if name}
        hooks = getattr(module, "hook_dict", None)
        points = hooks.items() if isinstance(hooks, dict) else ()
        return known | {name: Place(point) for name, point in points if isinstance(point, nn.Module)}

    def default_sites(self, module: nn.Module) -> list[str]:
        """Return the sites that ``"all"`` stands for."""
        known = [name for name, _ in module.named_children()]
        raise LatentsError(
            f"sites='all' is not known for {type(module).__name__}: name submodules, such as sites=[{known[0]!r}]"
            if known
            else f"{type(module).__name__} has no submodules to read: wrap it in one that has"
        )

    def call(self, module: nn.Module, tokens: Tensor, real: Tensor) -> Any:
        """Run the model on tokens, with an ``attention_mask`` where it takes one and there is padding."""
        if "attention_mask" in inspect.signature(module.forward).parameters and not bool(real.all()):
            return module(tokens, attention_mask=real.long())
        return module(tokens)

    def read(
        self, tokens: Int[Tensor, "b t"], real: Bool[Tensor, "b t"], documents: Int[Tensor, "b t"] | None
    ) -> tuple[States, Float[Tensor, "b t vocabulary"] | None]:
        if len(tokens) == tokens.shape[1] > 1 and not self._order_known:
            # With as many episodes as positions, a state's shape does not show which axis is which.
            self._watched(tokens[:1], real[:1])
            self._order_known = True
        return self._watched(tokens, real)[0], None

    def _watched(
        self, tokens: Int[Tensor, "b t"], real: Bool[Tensor, "b t"], stop: nn.Module | None = None
    ) -> tuple[States, Any]:
        """Run the model and record the states at all sites; end before the submodule `stop`, if given."""
        states: dict[str, Tensor] = {}

        def keep(name: str, value: Any) -> None:
            if name in states:
                raise LatentsError(
                    f"site {name!r} runs several times in one forward pass, so it has several states per position: "
                    "read a submodule that runs once"
                )
            state = _first_tensor(value)
            if state is None or state.ndim != 3 or state.shape[:2] != tokens.shape:
                if state is not None and state.ndim == 3 and state.shape[:2] == tokens.T.shape:
                    raise LatentsError(
                        f"site {name!r} gives positions before episodes: build the model with batch_first=True, or "
                        "read a submodule that gives (episodes, positions, width)"
                    )
                got = type(value).__name__ if state is None else f"a tensor of shape {tuple(state.shape)}"
                raise LatentsError(
                    f"site {name!r} gives {got}, not ({tokens.shape[0]}, {tokens.shape[1]}, width): it does not "
                    "hold one state per token; choose another site"
                )
            if state.is_complex():
                raise LatentsError(
                    f"site {name!r} gives complex numbers, and a table holds real ones: read a submodule that gives "
                    "torch.view_as_real(state).flatten(-2), which has real and imaginary parts"
                )
            # A copy: later layers may change the tensor in place.
            states[name] = state.detach().clone()

        def enough(*_: Any) -> None:
            raise _Enough

        result = None
        try:
            with ExitStack() as hooks:
                for name, place in self._places.items():
                    hooks.enter_context(_hook(name, place, keep))
                if stop is not None:
                    hooks.enter_context(stop.register_forward_pre_hook(enough))
                with suppress(_Enough):
                    result = self._call(self.module, tokens, real)
        except IndexError as error:
            sizes = [part.num_embeddings for part in self.module.modules() if isinstance(part, nn.Embedding)]
            if not sizes or (int(tokens.max()) < min(sizes) and tokens.shape[1] <= min(sizes)):
                raise
            raise LatentsError(
                f"the model cannot read tokens with ids up to {int(tokens.max())} at {tokens.shape[1]} positions: its "
                f"embeddings have {', '.join(map(str, sizes))} rows"
            ) from error
        for name in self._places:
            if name not in states:
                raise LatentsError(f"site {name!r} did not run in the forward pass: choose another, or give call=...")
        return {HIDDEN if name == self._hidden else name: state for name, state in states.items()}, result

    def _chosen(self, module: nn.Module, sites: str | Sequence[str], known: list[str]) -> list[str]:
        if sites == "all":
            return self.default_sites(module)
        chosen: list[str] = []
        for pattern in [sites] if isinstance(sites, str) else list(sites):
            # A star does not match dots, as in a shell it does not match slashes.
            depth = pattern.count(".")
            matches = [name for name in known if fnmatch.fnmatchcase(name, pattern) and name.count(".") == depth]
            if not matches:
                raise unknown("site", pattern, known)
            chosen += [name for name in matches if name not in chosen]
        if not chosen:
            raise LatentsError("sites is empty: name at least one submodule")
        return chosen


class CausalLMReader(ModuleReader):
    """Reads a causal language model of Hugging Face at "embed", "block0", ... and "hidden".

    "embed" is the input of the first block, "block<i>" the output of a block, and "hidden" the input of the output
    head: the state after the last norm. Names of submodules are sites too.
    """

    def __init__(
        self,
        module: nn.Module,
        sites: str | Sequence[str],
        hidden: str | None = None,
        call: Call | None = None,
        name: str | None = None,
        trained: TrainedModel | None = None,
    ) -> None:
        config: Any = module.config
        self._head: nn.Module = module.get_output_embeddings()  # type: ignore[operator]
        super().__init__(module, sites, hidden or HIDDEN, call, name or name_of(module), trained)
        self.context = getattr(config, "max_position_embeddings", None)
        self.vocabulary_size = int(config.vocab_size)
        card = {"class": type(module).__name__, "config": json.loads(config.to_json_string())}
        if trained is not None:
            self.meta |= {"label": trained.label, "step": trained.step}
            self.vocabulary_size = len(trained.world.vocabulary)
        self.meta["card"] = json.dumps(card)

    def places(self, module: nn.Module) -> dict[str, Place]:
        known: dict[str, Place] = {}
        if (blocks := blocks_of(module)) is not None:
            known["embed"] = Place(blocks[0], is_input=True)
            known |= {f"block{i}": Place(block) for i, block in enumerate(blocks)}
        known[HIDDEN] = Place(self._head, is_input=True)
        return known | {name: place for name, place in super().places(module).items() if name not in known}

    def default_sites(self, module: nn.Module) -> list[str]:
        blocks = [name for name, place in self.places(module).items() if name == "embed" or name.startswith("block")]
        layers = int(module.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
        return [*blocks[: layers + 1], HIDDEN]

    def call(self, module: nn.Module, tokens: Tensor, real: Tensor) -> Any:
        """Run the model; without padding no mask is passed, which is faster."""
        mask = None if bool(real.all()) else real.long()
        return module(input_ids=tokens, attention_mask=mask, use_cache=False)

    def read(
        self, tokens: Int[Tensor, "b t"], real: Bool[Tensor, "b t"], documents: Int[Tensor, "b t"] | None
    ) -> tuple[States, Float[Tensor, "b t vocabulary"] | None]:
        if self.vocabulary_size is not None and self.vocabulary_size <= MOST_TOKENS:
            states, result = self._watched(tokens, real)
            logits = getattr(result, "logits", None)
            # A fine-tuned model predicts the tokens of its world.
            return states, None if logits is None else logits[..., : self.vocabulary_size]
        # The head of a large vocabulary costs as much as several blocks, and its output would be dropped.
        states, _ = self._watched(tokens, real, stop=self._head)
        return states, None


def _hook(name: str, place: Place, keep: Callable[[str, Any], None]) -> Any:
    if not place.is_input:
        return place.module.register_forward_hook(lambda module, args, output: keep(name, output))
    return place.module.register_forward_pre_hook(
        lambda module, args, kwargs: keep(name, args or list(kwargs.values())), with_kwargs=True
    )


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return next((item for item in value if isinstance(item, Tensor)), None)
    return None


def weights_of(module: nn.Module) -> str:
    """Hash a model: its class, and the names, types and bytes of its parameters and buffers."""
    digest = hashlib.sha256(f"{type(module).__module__}.{type(module).__qualname__}".encode())
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
