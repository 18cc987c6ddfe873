"""Text: windows of documents, the split by content, and the cache."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nextlat_viz as nlv
from benchmarks.plain import text as plain
from nextlat_viz import worlds
from nextlat_viz.analysis.measure import evaluation
from nextlat_viz.errors import CheckpointError, UnknownNameError
from nextlat_viz.worlds import outside
from nextlat_viz.worlds.text import cache
from nextlat_viz.worlds.text.corpus import BOUNDARY, in_test, readable
from nextlat_viz.worlds.text.world import Text, text

from .test_draw import texts

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "naïve", "mice", "日本", "🙂", "<i>it</i>", "$x$"]


def made_up(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"Story {k}: " + " ".join(rng.choices(WORDS, k=rng.randint(3, 30))) + ".\nThe end." for k in range(count)]


DOCUMENTS = made_up(120)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "stories.txt"
    path.write_text(f"\n{BOUNDARY}\n".join(DOCUMENTS), encoding="utf-8")
    return path


@pytest.fixture
def world(library: Path) -> Text:
    return text(library, vocabulary_size=400)


def pieces(world: Text, split: str) -> list[str]:
    """Return the documents of a split, from its token ids."""
    ids = world.packed.parts[split]
    assert ids[-1] == world.boundary
    return world.decode(ids).split(BOUNDARY)[:-1]


def test_every_document_is_in_one_split_once(world: Text) -> None:
    train, test = pieces(world, "train"), pieces(world, "test")
    assert sorted(train + test) == sorted(DOCUMENTS)
    assert 0 < len(test) < len(train)
    assert not set(train) & set(test)
    assert all(in_test(document, 0.1) for document in test)
    assert world.packed.documents == {"train": len(train), "test": len(test)}


def test_equal_documents_are_in_the_same_split(tmp_path: Path) -> None:
    path = tmp_path / "twice.txt"
    path.write_text(BOUNDARY.join(DOCUMENTS + DOCUMENTS[::-1]), encoding="utf-8")
    world = text(path, vocabulary_size=300)
    assert not set(pieces(world, "train")) & set(pieces(world, "test"))
    assert len(pieces(world, "train")) + len(pieces(world, "test")) == 240


@pytest.mark.parametrize("split", ["train", "test"])
def test_windows_are_slices(world: Text, split: str) -> None:
    episodes = world.sample(40, 24, 7, split=split)
    # Two bytes a token, so that a slice is a slice of the bytes.
    whole = np.asarray(world.packed.parts[split], np.uint16).tobytes()
    assert all(row.astype(np.uint16).tobytes() in whole for row in episodes.tokens)
    assert len(np.unique(episodes.tokens, axis=0)) > 30
    assert episodes.loss_mask.all()
    assert (episodes.length == 24).all()
    assert world.sample(40, 24, 7, split=split).sha256 == episodes.sha256
    assert world.sample(40, 24, 8, split=split).sha256 != episodes.sha256
    bare = world.sample(40, 24, 7, split=split, states=False)
    assert list(bare.states) == ["document"]
    np.testing.assert_array_equal(bare.states["document"], episodes.states["document"])
    assert world.legal(episodes.tokens).all()
    assert world.legal_next(episodes.tokens).all()
    assert world.legal_next(episodes.tokens).shape == (40, 24, len(world.vocabulary))
    assert world.next_token_probs(episodes.tokens) is None
    assert world.floor(23) is None


def test_states_number_the_documents_of_a_window(world: Text) -> None:
    episodes = world.sample(30, 90, 1)
    for row, tokens in enumerate(episodes.tokens.tolist()):
        document = place = 0
        for t, token in enumerate(tokens):
            assert episodes.states["document"][row, t] == document
            assert episodes.states["document_position"][row, t] == place
            document, place = (document + 1, 0) if token == world.boundary else (document, place + 1)
    assert episodes.states["document"].max() > 1
    for name, values in world.replay(episodes.tokens[:, :40]).items():
        np.testing.assert_array_equal(values, episodes.states[name][:, :40])


def test_tokens_decode_as_by_the_tokenizer(world: Text) -> None:
    from tokenizers import Tokenizer

    bpe = Tokenizer.from_str(world.packed.tokenizer)
    for tokens in world.sample(20, 50, 3).tokens.tolist():
        assert world.decode(tokens) == bpe.decode(tokens, skip_special_tokens=False)
    words = 'A naïve cat said: "日本 🙂!"\n' + BOUNDARY
    assert world.decode(world.encode(words)) == words
    assert world.encode(words)[-1] == world.boundary


def test_the_vocabulary_is_readable(world: Text) -> None:
    assert len(world.vocabulary) == len(set(world.vocabulary)) == 400
    assert BOUNDARY in world.vocabulary
    assert "␣cat" in world.vocabulary
    assert all(name and name.isprintable() and " " not in name for name in world.vocabulary)


@given(
    st.lists(
        st.one_of(st.binary(max_size=4), st.text(max_size=4).map(lambda t: t.encode(errors="ignore"))), unique=True
    )
)
def test_token_names_are_unique(words: list[bytes]) -> None:
    assert len({readable(word) for word in words}) == len(words)


def test_the_spec_builds_the_same_world(library: Path, world: Text) -> None:
    again = worlds.from_spec(json.loads(json.dumps(world.spec)))
    assert (again.spec, again.vocabulary) == (world.spec, world.vocabulary)
    assert again.sample(5, 20, 1).sha256 == world.sample(5, 20, 1).sha256
    assert world.spec["sha256"] == hashlib.sha256(library.read_bytes()).hexdigest()
    assert world.spec["source"] == str(library)


def test_other_text_under_the_same_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(BOUNDARY.join(DOCUMENTS), encoding="utf-8")
    spec = text(path, vocabulary_size=300).spec
    path.write_text(BOUNDARY.join(DOCUMENTS[1:]), encoding="utf-8")
    now = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=rf"mine.txt' has SHA-256 {now}, expected {spec['sha256']}"):
        worlds.from_spec(spec)
    path.write_text(BOUNDARY.join(DOCUMENTS), encoding="utf-8")
    with pytest.raises(ValueError, match=f"has SHA-256 {spec['tokenizer_sha256']}, expected 00"):
        worlds.from_spec({**spec, "tokenizer_sha256": "00"})
    path.unlink()
    assert worlds.from_spec(spec).spec == spec
    with pytest.raises(ValueError, match="does not exist"):
        text(path)


@pytest.fixture
def _no_training(world: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the world into the cache, then hide the package tokenizers."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)


@pytest.mark.usefixtures("_no_training")
def test_a_cached_world_needs_no_tokenizers(library: Path, world: Text) -> None:
    again = text(library, vocabulary_size=400)
    assert again.sample(5, 20, 1).sha256 == world.sample(5, 20, 1).sha256
    with pytest.raises(ImportError, match=r'needs the package tokenizers: pip install "nextlat-viz\[text\]"'):
        text(library, vocabulary_size=401)


@pytest.mark.parametrize("damage", ["cut", "altered", "missing", "not json"])
@pytest.mark.parametrize("ending", [".json", ".tokenizer.json", ".train.npy", ".test.npy"])
def test_a_damaged_cache_entry_is_rebuilt(library: Path, world: Text, damage: str, ending: str) -> None:
    (described,) = (path for path in cache.folder().glob("*.json") if path.suffixes == [".json"])
    path = described.with_name(described.stem + ending)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        worse = {"cut": content[:-7], "altered": content[:-1] + bytes([content[-1] ^ 1]), "not json": b"[1]"}
        path.write_bytes(worse[damage])
    assert text(library, vocabulary_size=400).sample(5, 20, 1).sha256 == world.sample(5, 20, 1).sha256
    assert path.read_bytes() == content


def test_an_interruption_leaves_no_partial_files(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Path, target: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        world = text(library, vocabulary_size=300)
    assert list(cache.folder().iterdir()) == []
    assert text(library, vocabulary_size=300).sample(2, 9, 1).sha256 == world.sample(2, 9, 1).sha256
    assert len(list(cache.folder().iterdir())) == 4


def test_blank_lines_and_max_documents(tmp_path: Path) -> None:
    path = tmp_path / "paragraphs.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(f"paragraph {k}\r\ngoes on" for k in range(60)).encode())
    world = text(path, vocabulary_size=280, separator="\n\n", documents=40, test_share=0.2)
    result = pieces(world, "train") + pieces(world, "test")
    assert sorted(result) == sorted(f"paragraph {k}\ngoes on" for k in range(40))
    assert {"separator": "\n\n", "documents": 40, "test_share": 0.2}.items() <= world.spec.items()
    assert worlds.from_spec(world.spec).spec == world.spec


def test_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "stories.jsonl"
    path.write_text("\n".join(json.dumps({"story": document}) for document in DOCUMENTS) + "\n\n", encoding="utf-8")
    world = text(path, vocabulary_size=280, column="story", test_share=0.0)
    assert world.splits == ("train",)
    assert pieces(world, "train") == DOCUMENTS
    with pytest.raises(ValueError, match=r"line 1 of source=.* must be a JSON object with text under 'text'"):
        text(path)


def write(content: bytes) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        (folder / "some.txt").write_bytes(content)
        return folder / "some.txt"

    return written


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (write(b""), {}, "some.txt' has no text"),
        (write(f" \n{BOUNDARY}\n ".encode()), {}, "some.txt' has no text"),
        (write(b"good \xe9 bad"), {}, "some.txt' is not UTF-8: byte 0xe9 at offset 5; convert it"),
        (write(b"one document"), {}, r"none of the 1 documents .* is in split 'test'; separator='\\n\\n'"),
        (write(b"x"), {"vocabulary_size": 256}, "vocabulary_size must be at least 257, 256 bytes and the boundary"),
        (write(b"x"), {"vocabulary_size": 0}, "vocabulary_size must be an integer of at least 1, got 0"),
        (write(b"x"), {"test_share": 1.0}, r"test_share must be in \[0, 1\), got 1.0"),
        (write(b"x"), {"separator": ""}, "separator must not be empty"),
        (write(b"x"), {"documents": 0}, "documents must be an integer of at least 1, got 0"),
        (lambda folder: write(b"x")(folder).with_name("same.txt"), {}, "same.txt' does not exist; did you mean .*some"),
        (lambda folder: folder, {}, "is a folder; name a file in it"),
        (lambda folder: "no/such/folder/at.all", {}, "source='no/such/folder/at.all' does not exist"),
    ],
)
def test_bad_sources_are_refused(
    tmp_path: Path, source: Callable[[Path], Path | str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        worlds.get("text", source=source(tmp_path), **options)
    assert not cache.folder().exists()


def test_bad_arguments_are_refused(world: Text) -> None:
    with pytest.raises(ValueError, match="world 'text' needs the parameter 'source'"):
        worlds.get("text")
    assert "text" not in worlds.names()
    with pytest.raises(ValueError, match="length is needed"):
        world.sample(3)
    with pytest.raises(ValueError, match=r"length=100000 is longer than the test documents, \d+ tokens"):
        world.sample(1, 100_000, split="test")
    with pytest.raises(UnknownNameError, match="unknown split of world 'text': 'tset'"):
        world.sample(1, 8, split="tset")
    with pytest.raises(ValueError, match="token 400 of episode 0 at position 1 is outside the vocabulary"):
        world.legal(np.array([[400]]))


class Hub:
    """Stands in for the two packages that fetch data sets, and for the network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[dict[str, Any]] = [{"text": document, "id": k} for k, document in enumerate(DOCUMENTS)]
        self.down = False
        self.asked: list[dict[str, Any]] = []
        monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=self.load))
        monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=lambda: self))

    def dataset_info(self, name: str, revision: str | None) -> types.SimpleNamespace:
        if self.down:
            raise ConnectionError("Name or service not\n known")
        return types.SimpleNamespace(sha=revision or "c0ffee")

    def load(self, name: str, subset: str | None, **options: Any) -> Iterator[dict[str, Any]]:
        self.dataset_info(name, None)
        self.asked.append({"name": name, "subset": subset, **options})
        return iter(self.rows)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(monkeypatch)


def test_a_data_set_by_name(hub: Hub) -> None:
    world = text("someone/Stories", vocabulary_size=300, documents=80, subset="small")
    assert sorted(pieces(world, "train") + pieces(world, "test")) == sorted(DOCUMENTS[:80])
    assert hub.asked == [
        {"name": "someone/Stories", "subset": "small", "split": "train", "revision": "c0ffee", "streaming": True}
    ]
    assert {"source": "someone/Stories", "revision": "c0ffee", "subset": "small"}.items() <= world.spec.items()
    # The revision identifies the text: nothing is fetched again, nor even requested.
    assert text("someone/Stories", vocabulary_size=300, documents=80, subset="small").spec == world.spec
    hub.down = True
    assert worlds.from_spec(world.spec).sample(3, 9, 1).sha256 == world.sample(3, 9, 1).sha256
    assert len(hub.asked) == 1


def test_a_data_set_that_changed_is_refused(hub: Hub) -> None:
    spec = text("someone/Stories", vocabulary_size=300).spec
    hub.rows = hub.rows[1:]
    for path in cache.folder().iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=rf"has SHA-256 \w+, expected {spec['sha256']}"):
        worlds.from_spec(spec)


def test_bad_data_sets_are_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"has no column 'story'; pass column=\.\.\. with one of 'text', 'id'"):
        text("someone/Stories", column="story")
    with pytest.raises(ValueError, match="column 'id' of data set 'someone/Stories' must hold text, got 0"):
        text("someone/Stories", column="id")
    hub.down = True
    with pytest.raises(
        ValueError, match=r"cannot be read as .*: Name or service not known\. Check the name and the network"
    ):
        text("someone/Stories")
    hub.rows = []
    hub.down = False
    with pytest.raises(ValueError, match="has no text"):
        text("someone/Stories")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="needs the package datasets"):
        text("someone/Stories")
    assert not cache.folder().exists()


@pytest.mark.parametrize("kind", ["passage", "frequencies"])
def test_pictures_show_text_as_text(world: Text, kind: str) -> None:
    hostile = "<script>alert(1)</script> $x$ <i>it</i>\n\tmöre 🙂 & " + BOUNDARY + " next"
    tokens = world.encode(hostile)[None]
    figures = [world.draw(kind), world.draw(kind, width=900, height=300)]
    figures += [world.draw(kind, episode=worlds.Episodes(tokens), position=t + 1) for t in range(tokens.shape[1])]
    for figure in figures:
        together = "\n".join(texts(figure.to_dict()))
        assert figure.layout.title.text.startswith("text")
        assert not [part for part in ("<script", "<i>", "$x$") if part in together]
    assert (figures[1].layout.width, figures[1].layout.height) == (900, 300)


def test_the_passage_is_the_text(world: Text) -> None:
    tokens = world.sample(1, 60, 5).tokens
    shown = world.draw(episode=worlds.Episodes(tokens), width=2000, height=2000).layout.annotations[0].text
    bare = shown.replace("&lt;", "<").replace("&gt;", ">").replace("&#36;", "$")
    words = world.decode(tokens[0]).replace(BOUNDARY, " ").split()[1:-1]
    assert len(words) > 20
    assert all(word in bare for word in words)


def test_bad_pictures_are_refused(world: Text) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown kind of picture 'pasage'\. Did you mean 'passage'\?"):
        world.draw("pasage")
    with pytest.raises(UnknownNameError, match="unknown option of picture 'passage': 'heigth'"):
        world.draw("passage", heigth=3)
    with pytest.raises(ValueError, match="position must be an integer from 0 to 9, got 10"):
        world.draw(episode=world.sample(1, 9), position=10)


def test_the_plain_generator_gives_windows_too() -> None:
    rows = list(plain.episodes(5, 1))
    assert [len(row) for row in rows] == [256] * 5
    assert rows == list(plain.episodes(5, 1))


def test_a_checkpoint_reads_text_without_the_corpus(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = tmp_path / "stories.txt", tmp_path / "run"
    source.write_bytes(library.read_bytes())
    world = text(source, vocabulary_size=300)
    options = {"steps": 1, "layers": 1, "context": 16, "validation_episodes": 8, "logger": None, "progress": False}
    nlv.train(world, "nextlat", out=folder, **options)
    # Another machine: without corpus, without cache, and with this world not built.
    source.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(cache, "_tokenizers", {})
    monkeypatch.setattr(outside, "_asked", set())
    loaded = nlv.load(folder)
    assert not (tmp_path / "elsewhere").exists()
    assert (loaded.world.spec, loaded.world.vocabulary, loaded.world.splits) == (
        world.spec, world.vocabulary, ("train", "test")
    )  # fmt: skip
    prompt = "Story 3: the cat sat"
    tokens = loaded.world.encode(prompt)
    assert loaded.world.decode(tokens) == prompt
    latents = nlv.extract(loaded, worlds.Episodes(tokens[None, :16]), progress=False)
    assert nlv.latents.world_of(latents).vocabulary == world.vocabulary
    assert nlv.decoding.generate(loaded, [prompt[:8]], 4).tokens.shape[0] == 1
    assert nlv.analysis.read_string(loaded, prompt).tokens.tolist() == tokens.tolist()
    with pytest.raises(ValueError, match=r"only its tokenizer.* to nlv\.extract, and its table to nlv\.studio"):
        nlv.studio(loaded)
    assert nlv.studio(latents).state.latents[0].n_obs == len(latents)
    assert loaded.world.draw("passage", episode=worlds.Episodes(tokens[None])) is not None
    assert "not here, only its tokenizer" in loaded.world._repr_html_()
    missing = rf"only its tokenizer: source='{source}' with SHA-256 {world.spec['sha256']}.*from_spec.*text of your own"
    with pytest.raises(ValueError, match=missing):
        loaded.world.sample(2, 8)
    with pytest.raises(ValueError, match="only its tokenizer"):
        loaded.world.draw("frequencies")
    # Once the world is built from the text, a world loaded before can sample too.
    other = tmp_path / "other.txt"
    other.write_bytes(library.read_bytes())
    worlds.from_spec(loaded.world.spec | {"source": str(other)})
    assert loaded.world.sample(2, 8, 1).sha256 == world.sample(2, 8, 1).sha256


def test_the_tokenizer_of_a_checkpoint_is_sealed(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = tmp_path / "stories.txt", tmp_path / "run"
    source.write_bytes(library.read_bytes())
    options = {"steps": 1, "layers": 1, "context": 16, "validation_episodes": 8, "logger": None, "progress": False}
    nlv.train(text(source, vocabulary_size=300), "next_token", out=folder, **options)
    source.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(cache, "_tokenizers", {})
    path = folder / "tokenizer.json"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"tokenizer.json is truncated or altered: its sha256"):
        nlv.load(folder)
    # A checkpoint of an earlier version has none, and needs the corpus.
    path.unlink()
    with pytest.raises(CheckpointError, match=r"stories.txt.* does not exist"):
        nlv.load(folder)
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="left out .*only its tokenizer"), pytest.raises(ValueError, match="shipped"):
        evaluation._readable([folder])


def test_held_out_windows_do_not_overlap(tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text("\n\n".join(f"number {k} of all the numbers" for k in range(2000)))
    world = text(path, vocabulary_size=300, separator="\n\n")
    tokens = np.asarray(world.packed.parts["test"])
    count = len(tokens) // 8
    windows = world.sample_held_out(count, 8, seed=1).tokens
    # Every window of the split once, in another order.
    assert sorted(map(tuple, windows.tolist())) == sorted(map(tuple, tokens[: count * 8].reshape(-1, 8).tolist()))
    assert not np.array_equal(windows.ravel(), tokens[: count * 8])
    # Too few for more: drawn as by sample.
    assert np.array_equal(
        world.sample_held_out(count + 1, 8, 1).tokens, world.sample(count + 1, 8, 1, split="test").tokens
    )
