from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

import nextlat_viz as nlv
from nextlat_viz import analysis, models, worlds
from nextlat_viz.analysis.lookahead import look_ahead
from nextlat_viz.decoding import generate, speculative_generate
from nextlat_viz.errors import CheckpointError, TrainingError, UnknownNameError
from nextlat_viz.hf.backbone import PostHoc, Pretrained, weights_sha256
from nextlat_viz.hf.corpus import sequences
from nextlat_viz.hf.finetune import finetune
from nextlat_viz.hf.finetuned import Finetuned, load_finetuned
from nextlat_viz.hf.load import load_module
from nextlat_viz.latents import extract
from nextlat_viz.models import Batch
from nextlat_viz.training import resume
from nextlat_viz.training.card import sha256_of
from nextlat_viz.training.engine import Engine
from nextlat_viz.worlds import Episodes

VOCABULARY, CONTEXT, DIM = 6, 16, 16
LLAMA = {"vocab_size": VOCABULARY, "hidden_size": DIM, "intermediate_size": 32, "num_hidden_layers": 1}
LLAMA |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
LLAMA |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
QUICK = {"steps": 6, "batch_size": 8, "validate_every": 2, "save_every": 3, "held_out": 16, "progress": False}
# Long and many enough that few are equal, and that further training does not overfit.
CORPUS = worlds.get("mess3").sample(3000, CONTEXT, seed=1).tokens
TOKENS = worlds.get("mess3").sample(700, 10, seed=1).tokens


class Killed(Exception):
    pass


def stop() -> None:
    raise Killed


def build(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        sizes = {"vocab_size": VOCABULARY, "n_embd": DIM, "n_layer": 1, "n_head": 2, "n_positions": CONTEXT}
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(**sizes | {"bos_token_id": 0, "eos_token_id": 0} | options)
        )
    family = {"llama": "Llama", "qwen2": "Qwen2"}[kind]
    config = getattr(transformers, f"{family}Config")(**LLAMA | options)
    return getattr(transformers, f"{family}ForCausalLM")(config)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def trained(request: pytest.FixtureRequest) -> Any:
    """A small model, trained on its corpus, with dropout in its config."""
    model = build(request.param)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(120):
        tokens = torch.from_numpy(CORPUS[np.random.default_rng(step).integers(len(CORPUS), size=32)])
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("mode", ["psi", "full"])
def test_the_transition_error_falls_and_the_loss_stays(trained: Any, mode: str, tmp_path: Path) -> None:
    before, training = weights_sha256(trained), trained.training
    options = {"steps": 60, "validate_every": 30, "learning_rate": 1e-2, "progress": False}
    tuned = finetune(trained, CORPUS, mode=mode, out=tmp_path, **options)
    first, last = tuned.card.before, tuned.card.metrics
    assert first["transition_error"] == 1
    assert last["transition_error"] < 0.5
    assert last["next_h"] < first["next_h"]
    assert last["kl"] < first["kl"]
    assert last["loss"] < 1.01 * first["loss"]
    assert first["loss"] < first["unigram"]
    assert tuned.metrics["step"].tolist() == [0, 30, 60]
    # The given model is unchanged; the returned one only in mode "psi".
    assert (weights_sha256(trained), trained.training) == (before, training)
    assert (weights_sha256(tuned.model) == before) == (mode == "psi")
    assert all(parameter.requires_grad for parameter in trained.parameters())


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_hidden_is_the_input_of_the_head(kind: str) -> None:
    model = build(kind).eval()
    tokens = torch.from_numpy(TOKENS[:4])
    inputs_of_head: list[torch.Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: inputs_of_head.append(inputs[0]))
    model(input_ids=tokens)
    handle.remove()
    states = Pretrained(model).states(tokens)
    torch.testing.assert_close(states["hidden"], inputs_of_head[0])
    torch.testing.assert_close(states["embed"], model.get_input_embeddings().weight[tokens])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_packed_documents_have_the_states_of_each_alone(kind: str) -> None:
    backbone = Pretrained(build(kind))
    backbone.check_documents()
    tokens = torch.from_numpy(TOKENS[:3])
    documents = torch.tensor([[0] * 4 + [1] * 6, [0] + [1] + [2] * 8, [5] * 10])
    packed = backbone(tokens, documents)
    torch.testing.assert_close(packed[0, 4:], backbone(tokens[:1, 4:])[0])
    torch.testing.assert_close(packed[1, 2:], backbone(tokens[1:2, 2:])[0])
    torch.testing.assert_close(packed[1, 1:2], backbone(tokens[1:2, 1:2])[0])
    torch.testing.assert_close(packed[2], backbone(tokens[2:])[0])


def test_a_model_that_reads_across_documents_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextlat_viz.hf.backbone._positions", lambda documents: torch.arange(documents.shape[1])[None])
    packed = Episodes(TOKENS, {"document": np.arange(10)[None] // 5 + 0 * TOKENS})
    with pytest.raises(ValueError, match="one document per row"):
        finetune(build("gpt2"), packed, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


def test_losses_equal_those_of_the_paper() -> None:
    lengths = [10, 4, 10, 7, 2]
    model = PostHoc(Pretrained(build("llama")), 3, 0.5, 2.0, psi_width=8, full=True)
    torch.nn.init.normal_(model.psi.layers[-1].weight)
    result = model(Batch.from_episodes(Episodes(TOKENS[:5], length=np.array(lengths))))
    head = model.backbone.module.lm_head
    next_token, next_h, kl = [], [], []
    for row, n in zip(torch.from_numpy(TOKENS[:5]), lengths, strict=True):
        states = model.backbone.states(row[None, :n])
        h, embed = states["hidden"][0], states["embed"][0]
        next_token += [F.cross_entropy(head(h[t]), row[t + 1]) for t in range(n - 1)]
        for t in range(n):
            rolled = h[t]
            # The last token of a full row is not read; that of a shorter row is, but predicts nothing.
            for i in range(t + 1, min(t + 4, n, 9)):
                rolled = model.psi(rolled, embed[i])
                next_h.append(F.smooth_l1_loss(rolled, h[i]))
                if i < n - 1:
                    p, q = head(h[i]).log_softmax(-1), head(rolled).log_softmax(-1)
                    kl.append((p.exp() * (p - q)).sum())
    expected = {"next_token": next_token, "next_h": next_h, "kl": kl}
    means = {name: torch.stack(values).mean().item() for name, values in expected.items()}
    assert {name: result[name].item() for name in means} == pytest.approx(means, rel=1e-4)
    assert result["loss"].item() == pytest.approx(
        means["next_token"] + 0.5 * means["next_h"] + 2 * means["kl"], rel=1e-4
    )


def test_a_tied_head_gets_no_gradient_from_the_latent_losses() -> None:
    model = PostHoc(Pretrained(build("gpt2")), 2, 1.0, 1.0, psi_width=8, full=True)
    torch.nn.init.normal_(model.psi.layers[-1].weight)
    head = model.backbone.head.weight
    assert head is model.backbone.embed.weight
    batch = Batch.from_episodes(Episodes(TOKENS[:4]))
    states = {name: value.detach() for name, value in model.backbone.states(batch.inputs).items()}
    predicted = model.psi.rollout(states["hidden"], states["embed"], 2)
    _, kl = model.token_losses(states["hidden"], states["hidden"], predicted, batch)
    (kl + model.state_loss(states["hidden"], predicted, batch)).backward()
    assert head.grad is None or not head.grad.any()
    assert model.psi.layers[0].weight.grad.abs().sum() > 0
    # It is trained through the embedding that psi reads, and through the trunk.
    model(batch)["loss"].backward()
    assert head.grad.abs().sum() > 0
    # A parameter with two names is trained once.
    assert len(model.trained()) == len({id(parameter) for parameter in model.parameters()})


def test_dropout_is_off_and_psi_alone_moves() -> None:
    model = PostHoc(Pretrained(build("gpt2")), 1, 1.0, 1.0, psi_width=8).train()
    assert not any(module.training for module in model.backbone.modules())
    model(Batch.from_episodes(Episodes(TOKENS[:4])))["loss"].backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert len(model.trained()) == len(list(model.psi.parameters()))


def test_the_model_moves_more_slowly_than_psi(tmp_path: Path) -> None:
    # One step of AdamW moves every weight by its rate, whatever the gradient.
    model = build("llama")
    options = QUICK | {"steps": 1, "decay_steps": 0, "weight_decay": 0.0, "learning_rate": 1e-3}
    tuned = finetune(model, TOKENS, mode="full", model_rate=0.2, out=tmp_path, **options)
    moved = (tuned.model.lm_head.weight - model.lm_head.weight).abs().max().item()
    assert moved == pytest.approx(2e-4, rel=0.05)
    assert tuned.psi.layers[-1].bias.abs().max().item() == pytest.approx(1e-3, rel=0.05)


def test_a_rise_in_perplexity_gives_a_warning(trained: Any, tmp_path: Path) -> None:
    options = QUICK | {"mode": "full", "psi_steps": 0, "lambda_h": 1.0, "lambda_kl": 1.0, "model_rate": 20.0}
    with pytest.warns(UserWarning, match=r"raised the perplexity on held-out sequences by [\d.]+%: lower lambda_h=1.0"):
        worse = finetune(trained, CORPUS, out=tmp_path / "worse", **options)
    changed = f"Perplexity changed by {worse.card.perplexity_change:+.2%}."
    assert changed in (worse.folder / "README.md").read_text()
    kept = finetune(trained, CORPUS, mode="full", out=tmp_path / "kept", **QUICK)
    assert (kept.card.config.lambda_h, kept.card.config.lambda_kl) == (0.05, 0.1)
    assert abs(kept.card.perplexity_change) < 0.01


def test_psi_learns_before_the_model_moves(tmp_path: Path) -> None:
    before = weights_sha256(build("llama"))
    options = QUICK | {"mode": "full", "steps": 3}
    still = finetune(build("llama"), TOKENS, psi_steps=3, out=tmp_path / "still", **options)
    assert weights_sha256(still.model) == before
    assert still.card.metrics["transition_error"] < 1
    moved = finetune(build("llama"), TOKENS, psi_steps=2, out=tmp_path / "moved", **options)
    assert weights_sha256(moved.model) != before


def test_the_next_token_loss_alone_is_a_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = QUICK | {"mode": "full", "lambda_h": 0.0, "lambda_kl": 0.0}
    whole = finetune(build("gpt2"), TOKENS, out=tmp_path / "whole", **options)
    assert whole.card.metrics["transition_error"] == whole.card.before["transition_error"] == 1
    assert whole.card.metrics["kl"] > 0
    assert whole.card.parameters == sum(weights.numel() for weights in whole.model.parameters())
    step = Engine.step
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "step", lambda self, n, pieces: step(self, n, pieces) if n < 4 else stop())
        with pytest.raises(Killed):
            finetune(build("gpt2"), TOKENS, out=tmp_path / "cut", **options)
    assert finetune(build("gpt2"), TOKENS, out=tmp_path / "cut", **options).card.files == whole.card.files
    with pytest.raises(ValueError, match="leave psi nothing to learn"):
        finetune(build("gpt2"), TOKENS, out=tmp_path / "psi", **options | {"mode": "psi"})


def test_transition_error_by_hand(tmp_path: Path) -> None:
    lengths = np.full(len(TOKENS), 10)
    lengths[::3] = 6
    tuned = finetune(build("llama"), Episodes(TOKENS, length=lengths), out=tmp_path, **QUICK)
    held_out = sequences(Episodes(TOKENS, length=lengths), Pretrained(tuned.model).config, held_out=16).held_out
    missed = moved = loss = count = 0.0
    for row, n in zip(held_out.tokens, held_out.length.tolist(), strict=True):
        tokens = torch.from_numpy(row[None, :n])
        states = tuned.states(tokens)
        h, embed = states["hidden"][0, :-1], states["embed"][0, :-1]
        missed += (tuned.predict(h[:-1], embed[1:]) - h[1:]).double().square().sum().item()
        moved += (h[1:] - h[:-1]).double().square().sum().item()
        loss += F.cross_entropy(tuned.model.get_output_embeddings()(h), tokens[0, 1:], reduction="sum").item()
        count += n - 1
    assert tuned.card.metrics["transition_error"] == pytest.approx(missed / moved, rel=1e-4)
    assert tuned.card.metrics["loss"] == pytest.approx(loss / count, rel=1e-4)


def test_psi_sees_the_token_of_a_model_with_small_embeddings() -> None:
    model = build("llama", tie_word_embeddings=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1e-3)
    learner = PostHoc(Pretrained(model), 1, 1.0, 1.0, 16)
    batch = Batch.from_episodes(Episodes(TOKENS[:8]))
    states = learner.backbone.states(batch.inputs)

    learner.scale_tokens(batch)
    read = [states["hidden"], states["embed"] * learner.psi.scale]
    state, token = (float(part.detach().square().mean().sqrt()) for part in read)
    assert learner.psi.scale > 100
    assert token == pytest.approx(state, rel=1e-3)


def test_the_kl_over_the_corpus_tokens_equals_the_papers_if_others_are_impossible() -> None:
    model = build("llama", tie_word_embeddings=False)
    learner = PostHoc(Pretrained(model), 2, 1.0, 1.0, 16)
    torch.nn.init.normal_(learner.psi.layers[-1].weight, std=0.1)
    batch = Batch.from_episodes(Episodes(TOKENS[:8]))
    expected = learner(batch)
    learner.restrict(torch.arange(VOCABULARY))
    losses = learner(batch)
    torch.testing.assert_close(losses, expected)
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in learner.psi.parameters())
    learner.restrict(torch.tensor([0, 2]))
    assert learner(batch)["kl"] < expected["kl"]


@pytest.fixture
def restricted() -> PostHoc:
    learner = PostHoc(Pretrained(build("llama", tie_word_embeddings=False)), 2, 1.0, 1.0, 16)
    torch.nn.init.normal_(learner.psi.layers[-1].weight, std=0.1)
    learner.restrict(torch.tensor([4, 0, 2]))
    return learner


def test_the_corpus_tokens_move_with_the_model(restricted: PostHoc) -> None:
    batch = Batch.from_episodes(Episodes(TOKENS[:8]), "meta")
    hidden = torch.zeros(*batch.inputs.shape, DIM, device="meta")
    losses = restricted.to("meta").token_losses(hidden, hidden, [hidden[:, 1:]], batch)
    assert {loss.device.type for loss in losses} == {"meta"}


def test_the_kl_of_the_corpus_tokens_by_hand(restricted: PostHoc, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch.from_episodes(Episodes(TOKENS[:8]))
    losses = restricted(batch)
    states = restricted.backbone.states(batch.inputs)
    predicted = restricted.psi.rollout(states["hidden"], states["embed"], 2)
    head, kl = restricted.backbone.head.weight[[0, 2, 4]], []
    for i, guess in enumerate(predicted, start=1):
        p, q = (F.log_softmax(state @ head.T, dim=-1) for state in (states["hidden"][:, i:], guess))
        kl.append((p.exp() * (p - q)).sum(dim=-1).flatten())
    torch.testing.assert_close(losses["kl"], torch.cat(kl).mean())
    # Limit the logits held in memory.
    monkeypatch.setattr(models.losses, "MOST_LOGITS", 30)
    torch.testing.assert_close(restricted(batch), losses)


def test_the_corpus_tokens_in_half_precision(restricted: PostHoc) -> None:
    batch = Batch.from_episodes(Episodes(TOKENS[:8]))
    exact = restricted(batch)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(restricted(batch), exact, rtol=0.05, atol=1e-3)
        assert restricted.draft_logits(torch.randn(2, DIM)).isfinite().sum() == 6


def test_restricted_drafts_do_not_change_the_output(tmp_path: Path) -> None:
    tuned = finetune(build("llama"), TOKENS, out=tmp_path, **QUICK)
    expected = generate(tuned, TOKENS[:4, :3], 6)
    tuned.network.restrict(torch.tensor([0, 2]))
    hidden = torch.randn(2, DIM)
    logits = tuned.network.draft_logits(hidden)
    assert torch.isneginf(logits).nonzero()[:, 1].unique().tolist() == [1, 3, 4, 5]
    torch.testing.assert_close(logits[:, [0, 2]], tuned.network.logits(hidden)[:, [0, 2]])
    drafted = speculative_generate(tuned, TOKENS[:4, :3], 6, draft=3)
    assert (drafted.tokens == expected.tokens).all()
    rows = np.tile(TOKENS[0, :2], (4_000, 1))
    generated = speculative_generate(tuned, rows, 2, draft=2, temperature=1.0, seed=0, stop=())
    plain = generate(tuned, rows, 2, temperature=1.0, seed=1, stop=())
    shares = [
        np.bincount(out.continuation @ [VOCABULARY, 1], minlength=VOCABULARY**2) / 4_000 for out in (generated, plain)
    ]
    np.testing.assert_allclose(*shares, atol=0.03)


def test_rollout_applies_psi_repeatedly(tmp_path: Path) -> None:
    tuned = finetune(build("gpt2"), TOKENS, horizon=2, psi_width=5, out=tmp_path, **QUICK)
    states = tuned.states(torch.from_numpy(TOKENS[:3]))
    rolled = tuned.rollout(states["hidden"][:, 0], torch.from_numpy(TOKENS[:3, 1:4]))
    first = tuned.predict(states["hidden"][:, 0], states["embed"][:, 1])
    torch.testing.assert_close(rolled[:, 0], first)
    torch.testing.assert_close(rolled[:, 1], tuned.predict(first, states["embed"][:, 2]))
    assert rolled.shape == (3, 3, DIM)
    assert tuned.rollout(states["hidden"][:, 0], torch.zeros(3, 0, dtype=torch.long)).shape == (3, 0, DIM)


@pytest.mark.parametrize(("kind", "mode"), [("gpt2", "full"), ("llama", "psi")])
def test_a_killed_run_ends_with_the_same_weights(
    kind: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetune(build(kind), TOKENS, mode=mode, seed=2, out=tmp_path / "whole", **QUICK)
    step = Engine.step

    def stops(self: Engine, number: int, pieces: Any) -> None:
        if number == 4:
            raise Killed
        step(self, number, pieces)

    monkeypatch.setattr(Engine, "step", stops)
    with pytest.raises(Killed):
        finetune(build(kind), TOKENS, mode=mode, seed=2, out=tmp_path / "cut", **QUICK)
    monkeypatch.undo()
    assert resume.load_state(tmp_path / "cut").progress.step == 3
    with pytest.raises(CheckpointError, match="make the same call"):
        load_finetuned(tmp_path / "cut")
    with pytest.raises(CheckpointError, match="horizon 1 there, 2 asked for"):
        finetune(build(kind), TOKENS, mode=mode, horizon=2, seed=2, out=tmp_path / "cut", **QUICK)
    resumed = finetune(build(kind), TOKENS, mode=mode, seed=2, out=tmp_path / "cut", **QUICK)
    assert resumed.card.files == whole.card.files
    assert resumed.metrics.equals(whole.metrics)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir() if path.is_file()) == [
        "README.md",
        "card.json",
        "held_out.safetensors",
        "metrics.csv",
        "psi.safetensors",
    ]
    # It is finished: the same call loads it, another is refused.
    again = finetune(build(kind), TOKENS, mode=mode, seed=2, out=tmp_path / "cut", **QUICK)
    assert again.card == resumed.card
    with pytest.raises(CheckpointError, match="seed 2 there, 3 asked for"):
        finetune(build(kind), TOKENS, mode=mode, seed=3, out=tmp_path / "cut", **QUICK)
    with pytest.raises(CheckpointError, match="corpus"):
        finetune(build(kind), TOKENS[:300], mode=mode, seed=2, out=tmp_path / "cut", **QUICK)
    with pytest.raises(CheckpointError, match="model weights_sha256"):
        finetune(perturbed(kind), TOKENS, mode=mode, seed=2, out=tmp_path / "cut", **QUICK)


def test_an_interrupt_saves_the_state_of_the_step_it_finishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Engine.step

    def interrupt(self: Engine, number: int, pieces: Any) -> None:
        if number == 1:
            signal.raise_signal(signal.SIGINT)
        step(self, number, pieces)

    monkeypatch.setattr(Engine, "step", interrupt)
    with pytest.raises(KeyboardInterrupt, match="after step 2 of 6"):
        finetune(build("gpt2"), TOKENS, out=tmp_path, **QUICK)
    assert resume.load_state(tmp_path).progress.step == 2


def test_an_undefined_metric_is_left_out_of_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = PostHoc.measure
    still = torch.tensor(0.0)
    monkeypatch.setattr(PostHoc, "measure", lambda self, batch: {**measure(self, batch), "moved": still})
    tuned = finetune(build("gpt2"), TOKENS, out=tmp_path, **QUICK)
    assert "transition_error" not in tuned.card.metrics
    assert "transition_error" not in tuned.card.before
    assert load_finetuned(tmp_path).card == tuned.card


def perturbed(kind: str) -> Any:
    model = build(kind)
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1
    return model


def test_a_saved_model_is_loaded_unchanged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, float]] = []
    tuned = finetune(build("gpt2"), TOKENS, mode="full", out=tmp_path / "a", on_validation=rows.append, **QUICK)
    assert [row["step"] for row in rows] == [0, 2, 4, 6]
    named = (tuned.folder / "README.md").read_text() + "The model: MIT.\n"
    (tuned.folder / "README.md").write_text(named)
    copy = load_finetuned(tuned.save(tmp_path / "b"))
    assert (tmp_path / "b" / "README.md").read_text() == named
    assert tuned.save(tmp_path / "b") == tmp_path / "b"
    assert capfd.readouterr().err == ""
    assert copy.card == tuned.card
    assert not copy.model.training
    assert weights_sha256(copy.model) == weights_sha256(tuned.model)
    assert copy.psi.state_dict().keys() == tuned.psi.state_dict().keys()
    assert all(torch.equal(copy.psi.state_dict()[k], v) for k, v in tuned.psi.state_dict().items())
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b" / "model")
    assert weights_sha256(plain) == weights_sha256(tuned.model)
    card = json.loads((tmp_path / "b" / "card.json").read_text())
    assert sorted(card["files"]) == sorted(
        path.relative_to(tmp_path / "b").as_posix()
        for path in (tmp_path / "b").rglob("*")
        if path.is_file() and path.name not in ("card.json", "README.md")
    )
    readme = (tmp_path / "b" / "README.md").read_text()
    assert readme == (tmp_path / "a" / "README.md").read_text()
    for known in (tuned.card.model["weights_sha256"], tuned.card.corpus["sha256"], "mode full", "steps 6"):
        assert known in readme
    assert 'base_model: "GPT2LMHeadModel"' in readme
    assert f"| loss | {tuned.card.before['loss']:.5g} | {tuned.card.metrics['loss']:.5g} |" in readme
    assert "Not stated: name it here before you publish" in readme
    assert card["versions"]["transformers"] == transformers.__version__
    assert "mode='full'" in tuned.card.command
    assert "transition_error" in tuned._repr_html_()
    assert "GPT2LMHeadModel" in repr(tuned)
    other = finetune(build("gpt2"), TOKENS, out=tmp_path / "c", **QUICK)
    with pytest.raises(CheckpointError, match="holds another model"):
        other.save(tmp_path / "b")


def test_altered_files_are_refused(tmp_path: Path) -> None:
    tuned = finetune(build("llama"), TOKENS, out=tmp_path / "whole", **QUICK)

    def damaged(name: str, content: bytes | None) -> Path:
        folder = tuned.save(tmp_path / name.replace("/", "-"))
        path = folder / name
        path.write_bytes(content) if content is not None else path.unlink()
        return folder

    for name in ("psi.safetensors", "model/model.safetensors", "model/config.json"):
        with pytest.raises(CheckpointError, match="altered"):
            load_finetuned(damaged(name, b"{}"))
    with pytest.raises(CheckpointError, match="missing"):
        load_finetuned(damaged("metrics.csv", None))
    with pytest.raises(CheckpointError, match="no file of this model's card"):
        load_finetuned(damaged("model/adapter_config.json", b"{}"))
    card = (tmp_path / "whole" / "card.json").read_text()
    folder = damaged("card.json", card.replace('"seed": 0', '"seed": 1').encode())
    with pytest.raises(CheckpointError, match="was altered"):
        load_finetuned(folder)
    (folder / "card.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"format None is not 'nextlat_viz.finetuned/1'"):
        load_finetuned(folder)
    (tmp_path / "whole" / "psi.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="truncated"):
        tuned.save(tmp_path / "new")


@pytest.mark.parametrize("name", ["../../.bashrc", "model/../../.bashrc", "/tmp/.bashrc"])
def test_a_card_cannot_name_files_outside_its_folder(tmp_path: Path, name: str) -> None:
    tuned = finetune(build("llama"), TOKENS, out=tmp_path / "a" / "b", **QUICK)
    card = tuned.card.model_copy(update={"files": {**tuned.card.files, name: "0" * 64}}).signed()
    (tmp_path / "a" / "b" / "card.json").write_text(card.model_dump_json())
    stranger = Finetuned(tuned.model, tuned.psi, card, tuned.folder)
    for attempt in (lambda: load_finetuned(tuned.folder), lambda: stranger.save(tmp_path / "c" / "d")):
        with pytest.raises(CheckpointError, match="may not lead out of its folder"):
            attempt()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("kind", "size"),
    [("llama", {"num_hidden_layers": 10**5}), ("gpt2", {"n_layer": 10**5}), ("llama", {"vocab_size": 10**9})],
)
def test_a_config_that_asks_for_more_than_the_weights_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, size: dict[str, int]
) -> None:
    tuned = finetune(build(kind), TOKENS, out=tmp_path / "a", **QUICK)
    path = tuned.folder / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | size))
    files = {**tuned.card.files, "model/config.json": sha256_of(path)}
    (tuned.folder / "card.json").write_text(tuned.card.model_copy(update={"files": files}).signed().model_dump_json())

    def build_it(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was built")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", build_it)
    with pytest.raises(CheckpointError, match=r"its config (has|asks for) .*, and its safetensors hold"):
        load_finetuned(tuned.folder)


def test_a_model_may_be_given_as_a_folder(tmp_path: Path) -> None:
    model = build("llama")
    model.save_pretrained(tmp_path / "there")
    by_name = finetune(str(tmp_path / "there"), TOKENS, out=tmp_path / "a", **QUICK)
    handed = finetune(model, TOKENS, out=tmp_path / "b", **QUICK)
    assert by_name.card.files["psi.safetensors"] == handed.card.files["psi.safetensors"]
    assert by_name.card.model["name"] == "there"
    assert by_name.card.model["config_sha256"] == handed.card.model["config_sha256"]
    assert by_name.card.command.startswith(f"finetune({str(tmp_path / 'there')!r}, corpus, mode='psi'")


def test_a_world_and_lists_are_corpora(tmp_path: Path) -> None:
    world = worlds.get("mess3")
    tuned = finetune(build("gpt2"), world, length=8, episodes=300, out=tmp_path / "world", **QUICK)
    assert tuned.card.corpus["world"] == world.spec
    assert tuned.card.corpus["length"] == 8
    assert "worlds.from_spec({'name': 'mess3'" in tuned.card.command
    ids = [row[: 3 + i % 8].tolist() for i, row in enumerate(TOKENS)]
    tuned = finetune(build("gpt2"), ids, length=5, out=tmp_path / "ids", **QUICK)
    assert tuned.card.corpus["length"] == 5
    texts = ["".join("abc"[token] for token in row) for row in ids]
    by_letter = lambda texts: {"input_ids": [["abc".index(letter) for letter in text] for text in texts]}  # noqa: E731
    same = finetune(build("gpt2"), texts, length=5, tokenizer=by_letter, out=tmp_path / "texts", **QUICK)
    assert same.card.corpus["sha256"] == tuned.card.corpus["sha256"]


@pytest.mark.parametrize("name", ["rrxor", "story"])
def test_held_out_sequences_are_not_in_training(name: str) -> None:
    world = worlds.get(name)
    shape = Pretrained(build("gpt2", vocab_size=max(len(world.vocabulary), VOCABULARY), n_positions=32)).config
    parts = sequences(world, shape, length=32, count=200, held_out=50)
    train, held_out = ({tuple(row) for row in part.tokens.tolist()} for part in (parts.train, parts.held_out))
    assert train
    assert held_out
    assert not train & held_out
    # The split is by content: with more of the same world, every sequence stays on its side.
    more = sequences(np.concatenate([parts.train.tokens, parts.held_out.tokens]), shape)
    if "test" not in world.splits:
        assert {tuple(row) for row in more.held_out.tokens.tolist()} == held_out


class Apart(type(worlds.get("mess3"))):  # type: ignore[misc]
    """A world that draws the same for every split."""

    splits = ("train", "test")

    def __init__(self) -> None:
        self.__dict__ |= worlds.get("mess3").__dict__

    def sample(self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", **_: Any) -> Episodes:
        return Episodes(np.indices((3, 3, 3)).reshape(3, -1).T)


def test_models_corpora_and_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def refused(message: str, corpus: Any = TOKENS, model: Any = None, **options: Any) -> None:
        with pytest.raises(ValueError, match=message):
            finetune(model or build("gpt2"), corpus, out=tmp_path / "out", **QUICK | options)
        assert not (tmp_path / "out").exists()

    refused("token 6, in position 3 .* 0 to 5", np.tile([[1, 2, 6, 3]], (50, 1)))
    refused("token -1", np.tile([[1, -1, 2, 3]], (50, 1)))
    refused("every sequence to hold out also occurs in training", Apart(), length=3)
    refused("story.* tokens, this model's embedding only 6", worlds.get("story"), length=8)
    refused("predict targets, but a language model", worlds.get("a5"), build("gpt2", vocab_size=60))
    refused("length is needed", worlds.get("mess3"))
    refused("horizon=9 must be at least 1 and at most 8", horizon=9)
    refused("horizon=0: input should be greater", horizon=0)
    refused("corpus is empty", TOKENS[:0])
    refused("corpus is empty", [])
    refused("corpus is empty", [[1], [2]])
    refused("corpus is empty, or too small", TOKENS[:1])
    refused("17 tokens, more than the 16 positions", np.zeros((4, 17), int))
    refused("length=17 must be at least 3.*the 16 positions", length=17)
    refused("no tokenizer in the folder of the model: give tokenizer=", ["a text"])
    refused("each item must be", [[0.5, 1.0]])
    refused("each item must be", [[[1, 2]]])
    refused("'a text' does not exist", "a text")
    refused("corpus must be a World", 5)
    refused("targets of its own", Episodes(TOKENS, targets=TOKENS))
    refused("psi_width=0", psi_width=0)
    refused("steps=-1", steps=-1)
    refused("mode='half'", mode="half")
    refused("precision='16-true'", precision="16-true")
    with pytest.raises(UnknownNameError, match="Did you mean 'warmup_steps'"):
        finetune(build("gpt2"), TOKENS, out=tmp_path / "out", warmup=3, **QUICK)


def test_models_psi_cannot_be_added_to_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(message: str, model: Any, error: type[Exception] = ValueError) -> None:
        with pytest.raises(error, match=message):
            finetune(model, TOKENS, out=tmp_path / "out", **QUICK)
        assert not (tmp_path / "out").exists()

    biased = build("llama")
    biased.lm_head.bias = torch.nn.Parameter(torch.ones(VOCABULARY))
    refused("output head with a bias", biased)
    refused(r"weights in torch.bfloat16: call model.float\(\)", build("llama").bfloat16())
    refused("no causal language model", build("gpt2").transformer)
    refused("must be a causal language model", torch.nn.Linear(2, 2))
    refused("scaled or capped", scaled())
    foreign = build("llama")
    foreign.config.auto_map = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    refused("auto_map: modeling_evil.Evil", foreign)
    foreign.config.save_pretrained(tmp_path / "foreign")
    config = json.loads((tmp_path / "foreign" / "config.json").read_text())
    (tmp_path / "foreign" / "config.json").write_text(
        json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}})
    )
    refused("auto_map: evil.Evil", str(tmp_path / "foreign"))
    (tmp_path / "empty").mkdir()
    refused("no readable config.json", str(tmp_path / "empty"))
    # Weights that are not safetensors are not read.
    build("llama").config.save_pretrained(tmp_path / "pickle")
    torch.save(build("llama").state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    refused("cannot be loaded", str(tmp_path / "pickle"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(r'pip install "nextlat-viz\[hf\]"', str(tmp_path / "pickle"), ImportError)


def scaled() -> Any:
    model = build("llama")
    model.lm_head.register_forward_hook(lambda _, inputs, output: output * 2)
    return model


def test_a_loss_of_nan_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="learning_rate below"):
        finetune(build("gpt2"), TOKENS, mode="full", learning_rate=1e30, grad_clip=0.0, out=tmp_path, **QUICK)
    assert not (tmp_path / "card.json").exists()


def test_bfloat16_trains(tmp_path: Path) -> None:
    tuned = finetune(build("llama"), TOKENS, precision="bf16-mixed", out=tmp_path, **QUICK)
    assert tuned.card.metrics["transition_error"] < 1
    assert isinstance(tuned, Finetuned)
    assert load_module(str(tmp_path / "model")).dtype == torch.float32


def test_the_default_device_does_not_matter(tmp_path: Path) -> None:
    whole = finetune(build("gpt2"), TOKENS, out=tmp_path / "whole", **QUICK)
    model = build("gpt2")
    with torch.device("meta"):
        tuned = finetune(model, TOKENS, out=tmp_path / "again", **QUICK)
        loaded = load_finetuned(tmp_path / "again")
    assert tuned.card.files == loaded.card.files == whole.card.files
    assert {p.device.type for part in (loaded.model, loaded.psi) for p in part.parameters()} == {"cpu"}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_fine_tuned_model_works_like_a_checkpoint(kind: str, tmp_path: Path) -> None:
    tuned = finetune(build(kind), TOKENS, out=tmp_path, **QUICK)
    prompts = [[0, 1, 2], [1], [2, 2, 0, 1, 1]]
    generated = generate(tuned, prompts, 8, stop=())
    for row, prompt in zip(generated.tokens, prompts, strict=True):
        tokens = list(prompt)
        for _ in range(8):
            tokens.append(int(tuned.model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        assert row[: len(tokens)].tolist() == tokens
    drafted = speculative_generate(f"hf:{tmp_path}", prompts, 8, draft=3, stop=())
    assert (drafted.tokens == generated.tokens).all()
    divergence = analysis.rollout_divergence(tuned, steps=2, n=16, progress=False).table
    assert divergence["k"].tolist() == [1, 1, 1, 2, 2, 2]
    latents = extract(f"hf:{tmp_path}", progress=False)
    assert latents.obs["episode"].nunique() == 16
    assert look_ahead(tuned, latents, 0, 2).horizon == 1


def test_the_untrained_control_and_the_live_loss(tmp_path: Path) -> None:
    monitor = nlv.LossMonitor()
    tuned = finetune(build("llama"), TOKENS, out=tmp_path, on_validation=monitor.watch("llama"), **QUICK)
    assert monitor.metrics["llama"]["step"].tolist() == [0, 2, 4, 6]
    latents = extract(tuned, TOKENS[:50], progress=False, truth={"sum": TOKENS[:50].cumsum(1)})
    control = extract(tuned.untrained(), TOKENS[:50], progress=False, truth={"sum": TOKENS[:50].cumsum(1)})
    by_rows = nlv.probe(latents, "sum", untrained=control, n_bootstrap=2)
    assert by_rows.untrained is not None
    own = nlv.probe(tuned, "token", untrained=tuned, n_bootstrap=2)
    assert own.untrained == nlv.probe(tuned, "token", untrained=extract(tuned.untrained()), n_bootstrap=2).untrained
    explorer = nlv.LatentExplorer(tuned)
    assert not explorer._alert.value
    explorer.close()


def test_measures_that_need_a_known_world_are_named_as_left_out(tmp_path: Path) -> None:
    tuned = finetune(build("gpt2"), TOKENS, out=tmp_path / "corpus", **QUICK)
    evaluation = nlv.evaluate(tuned, progress=False)
    measured = {name for name, _ in evaluation.measures}
    assert measured == {"loss", "tokens_ahead", "transition_consistency", "rollout_divergence", "acceptance"}
    assert "state and the rules of a corpus are not known: belief, board, next_token_test" in repr(evaluation)
    assert evaluation.left_out in evaluation._repr_html_()
    finetune(build("gpt2"), worlds.get("mess3"), length=8, episodes=300, out=tmp_path / "world", **QUICK)
    name = f"hf:{tmp_path / 'world'}"
    known = nlv.evaluate(name, ["belief", "latent_geometry", "rollout_divergence"], progress=False)
    assert known.left_out == ""
    # Episodes have 8 tokens, of which the model reads 7: fewer steps than the usual 8.
    assert known["rollout_divergence"].table["k"].max() == 6


def test_a_studio_shows_fine_tuned_models(tmp_path: Path) -> None:
    finetune(build("gpt2"), TOKENS, out=tmp_path, **QUICK)
    studio = nlv.studio(f"hf:{tmp_path}", load_finetuned(tmp_path))
    assert studio.state.world == "corpus"
    assert studio.panels["pairs"].words == "This world has no ground-truth state, so histories cannot be matched."
    assert "no known world" in studio.panels["world"].words
    assert all(studio.panels[name].drawn for name in ("space", "next", "knows"))
    studio.close()


def test_a_model_without_sequences_says_what_to_give(tmp_path: Path) -> None:
    build("gpt2").save_pretrained(tmp_path)
    for attempt in (nlv.evaluate, nlv.studio, nlv.LatentExplorer):
        with pytest.raises(ValueError, match="comes without sequences to measure on: give texts or tokens"):
            attempt(f"hf:{tmp_path}")


@pytest.fixture
def worded(tmp_path: Path) -> Path:
    """A folder of a model with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    build("gpt2").save_pretrained(tmp_path / "worded")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", chat_template="{{ a }}")
    tokenizer.save_pretrained(tmp_path / "worded")
    return tmp_path / "worded"


def test_the_tokenizer_of_the_folder_reads_texts_and_is_saved(worded: Path, tmp_path: Path) -> None:
    texts = [" ".join(f"w{token}" for token in row) for row in TOKENS]
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("<|endoftext|>".join(texts))
    tuned = finetune(str(worded), texts, out=tmp_path / "a", **QUICK)
    assert tuned.card.corpus["sha256"] == finetune(worded, corpus, out=tmp_path / "b", **QUICK).card.corpus["sha256"]
    assert f"finetune({str(worded)!r}, {str(corpus)!r}, " in load_finetuned(tmp_path / "b").card.command
    assert {"model/tokenizer.json", "model/tokenizer_config.json"} <= tuned.card.files.keys()
    copy = load_finetuned(tuned.save(tmp_path / "c"))
    assert copy.world.encode("w3 w5").tolist() == [3, 5]
    assert copy.tokenizer.chat_template == "{{ a }}"
    assert copy.world.vocabulary == tuple(f"w{i}" for i in range(VOCABULARY))
    latents = extract(f"hf:{tmp_path / 'c'}", ["w3 w5", "w1"], progress=False)
    assert latents.obs["token"].tolist() == ["w3", "w5", "w1"]
    assert generate(copy, ["w3 w5"], 2).tokens[0, :2].tolist() == [3, 5]
    from_file = extract(f"hf:{worded}", corpus, progress=False)
    assert from_file.obs["token"].tolist() == [f"w{token}" for token in TOKENS.flatten()]
    with pytest.raises(ValueError, match=r"a file of texts, or a list .*'nothing.txt' does not exist"):
        extract(copy, "nothing.txt")
    # An altered tokenizer is not loaded.
    (tmp_path / "c" / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="altered"):
        load_finetuned(tmp_path / "c")
    # The tokens of a world are not those of the tokenizer.
    tuned_on_world = finetune(str(worded), worlds.get("mess3"), length=8, episodes=300, out=tmp_path / "world", **QUICK)
    assert tuned_on_world.tokenizer is None


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_a_folder_without_a_tokenizer_has_none(kind: str, tmp_path: Path) -> None:
    # For GPT-2 and Qwen2, transformers makes a tokenizer of only the special tokens.
    build(kind).save_pretrained(tmp_path)
    assert nlv.load(f"hf:{tmp_path}").tokenizer is None
    with pytest.raises(ValueError, match="has no tokenizer: give token ids"):
        extract(f"hf:{tmp_path}", ["a text"])
