import math

import pytest
import torch
from pydantic import ValidationError

from nextlat_viz.models import KVCache, Transformer, TransformerConfig

CONFIG = TransformerConfig(vocabulary_size=5, context=10, layers=2, heads=2, dim=16, mlp_dim=24, start_token=False)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Transformer(CONFIG)
    # Larger weights than at initialisation, so that every part matters to the comparisons below.
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def tokens():
    return torch.randint(0, 5, (3, 10), generator=torch.Generator().manual_seed(1))


def literal_forward(model, tokens):
    """The architecture written out with loops over batch, position and head."""
    heads, width = CONFIG.heads, CONFIG.dim // CONFIG.heads

    def rms(x, weight):
        return x / torch.sqrt((x**2).mean() + torch.finfo(torch.float32).eps) * weight

    def rope(x, position):
        out = torch.empty_like(x)
        for pair in range(width // 2):
            angle = position * CONFIG.rope_base ** (-2 * pair / width)
            a, b = x[pair], x[pair + width // 2]
            out[pair] = a * math.cos(angle) - b * math.sin(angle)
            out[pair + width // 2] = a * math.sin(angle) + b * math.cos(angle)
        return out

    rows = []
    for row in tokens:
        xs = [model.embed.weight[token] for token in row]
        for block in model.blocks:
            normed = [rms(x, block.attention_norm.weight) for x in xs]
            q, k, v = (
                [[(w @ x)[h * width : (h + 1) * width] for h in range(heads)] for x in normed]
                for w in block.attention.qkv.weight.chunk(3)
            )
            attended = []
            for t in range(len(xs)):
                parts = []
                for h in range(heads):
                    scores = torch.stack([rope(q[t][h], t) @ rope(k[s][h], s) / math.sqrt(width) for s in range(t + 1)])
                    weights = scores.softmax(0)
                    parts.append(sum(weights[s] * v[s][h] for s in range(t + 1)))
                attended.append(block.attention.out.weight @ torch.cat(parts))
            xs = [x + a for x, a in zip(xs, attended, strict=True)]
            gate_weight, up_weight = block.mlp.gate_up.weight.chunk(2)
            for t, x in enumerate(xs):
                y = rms(x, block.mlp_norm.weight)
                gate = gate_weight @ y
                xs[t] = x + block.mlp.down.weight @ (gate * torch.sigmoid(gate) * (up_weight @ y))
        rows.append(torch.stack([rms(x, model.norm.weight) for x in xs]))
    return torch.stack(rows)


def test_agrees_with_the_architecture_written_out(model, tokens):
    torch.testing.assert_close(model(tokens), literal_forward(model, tokens), rtol=1e-4, atol=1e-5)


def test_attention_is_causal(model, tokens):
    changed = tokens.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 5
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_cache_rolls_back(model, tokens):
    cache = KVCache(CONFIG, batch_size=3, like=model.head.weight)
    model(tokens[:, :7], cache=cache)
    cache.truncate(4)
    parts = model(tokens[:, 4:], cache=cache)
    torch.testing.assert_close(parts, model(tokens)[:, 4:], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="length=11"):
        cache.truncate(11)


def test_documents_do_not_see_each_other(model, tokens):
    documents = torch.tensor([[0] * 4 + [1] * 6]).expand(3, 10)
    packed = model(tokens, documents)
    torch.testing.assert_close(packed[:, :4], model(tokens[:, :4]))
    changed = tokens.clone()
    changed[:, :4] = (changed[:, :4] + 1) % 5
    torch.testing.assert_close(model(changed, documents)[:, 4:], packed[:, 4:])


def test_rotary_positions_are_relative(model, tokens):
    """A document has the same states at every place in a packed row."""
    documents = torch.tensor([[0] * 4 + [1] * 6]).expand(3, 10)
    torch.testing.assert_close(model(tokens, documents)[:, 4:], model(tokens[:, 4:]), rtol=1e-3, atol=1e-4)


def test_a_run_of_one_token_has_one_state_at_any_length(model):
    """This is a limitation that the class documents."""
    hidden = model(torch.full((1, 10), 3))
    torch.testing.assert_close(hidden, hidden[:, :1].expand_as(hidden), rtol=1e-4, atol=1e-5)


def test_sites_names_the_states(model, tokens):
    states = model.states(tokens)
    assert list(states) == model.sites == ["embed", "block0", "block1", "hidden"]
    torch.testing.assert_close(states["hidden"], model(tokens))
    torch.testing.assert_close(model.norm(states["block1"]), states["hidden"])


def test_head_is_not_the_embedding(model):
    assert model.head.weight.data_ptr() != model.embed.weight.data_ptr()
    assert not [name for name, _ in model.named_parameters() if "bias" in name]


def test_sequences_longer_than_the_context_are_refused(model, tokens):
    with pytest.raises(ValueError, match="11 positions are more than this model's context of 10"):
        model(torch.cat([tokens, tokens[:, :1]], dim=1))


def test_head_width_must_be_even():
    with pytest.raises(ValidationError, match="dim=18 must be a multiple of 2 x heads=8"):
        TransformerConfig(vocabulary_size=2, dim=18, heads=4)


VARIANTS = [
    {},
    {"kv_heads": 2},
    {"kv_heads": 1},
    {"sharing": "k=v"},
    {"sharing": "q=k"},
    {"sharing": "q=k=v"},
    {"sharing": "k=v", "kv_heads": 2},
    {"sharing": "k=v", "kv_heads": 1},
]


def variant(**options):
    torch.manual_seed(1)
    shape = {"vocabulary_size": 5, "context": 10, "layers": 2, "heads": 4, "dim": 16, "mlp_dim": 24}
    model = Transformer(TransformerConfig(**shape, **options)).double()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.4)
    return model


def attend(attention, x, rotation):
    """Compute attention literally: one head and one pair of positions at a time."""
    b, t, _ = x.shape
    size, heads = attention.size, attention.heads
    parts = (x @ attention.qkv.weight.T).split([size * width for width in attention.widths], dim=-1)
    parts = [part.view(b, t, -1, size) for part in parts]
    which = {"none": (0, 1, 2), "k=v": (0, 1, 1), "q=k": (0, 0, 1), "q=k=v": (0, 0, 0)}[attention.sharing]
    q, k, v = (parts[i] for i in which)
    out = torch.zeros(b, t, heads, size, dtype=x.dtype)
    for row in range(b):
        for head in range(heads):
            served = head * k.shape[2] // heads
            for place in range(t):
                keys = torch.stack([turn(k[row, s, served], rotation[:, s]) for s in range(place + 1)])
                weights = (keys @ turn(q[row, place, head], rotation[:, place]) / size**0.5).softmax(0)
                out[row, place, head] = weights @ v[row, : place + 1, served]
    return out.flatten(2) @ attention.out.weight.T


def turn(x, rotation):
    (cos, sin), (first, second) = rotation, x.chunk(2)
    return torch.cat([first * cos - second * sin, first * sin + second * cos])


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_attention_equals_a_literal_reading(options):
    model, x = variant(**options), torch.randn(2, 6, 16, dtype=torch.float64)
    attention, rotation = model.blocks[0].attention, model.rotation[:, :6].double()
    torch.testing.assert_close(attention(x, rotation, None, None, 0), attend(attention, x, rotation))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("pieces", [1, 10, [4, 1, 5]])
def test_every_variant_gives_the_same_states_with_a_cache(options, pieces):
    model, tokens = variant(**options), torch.randint(5, (3, 10))
    cache = KVCache(model.config, batch_size=3, like=model.head.weight)
    parts = torch.cat([model(piece, cache=cache) for piece in tokens.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(parts, model(tokens))
    size = cache.buffers.element_size() * cache.buffers.numel()
    assert size == model.config.kv_cache_bytes(batch_size=3, dtype=torch.float64)


def test_kv_cache_bytes_equals_the_size_of_the_cache():
    full = variant().config.kv_cache_bytes(batch_size=2, length=7, dtype=torch.bfloat16)
    # The start token takes a place too.
    assert full == 2 * 2 * 8 * 2 * 16 * 2
    bytes_of = [variant(**options).config.kv_cache_bytes(2, 7, torch.bfloat16) for options in VARIANTS]
    # One projection for key and value halves it; n queries per key head divide it by n.
    assert [its / full for its in bytes_of] == [1, 1 / 2, 1 / 4, 1 / 2, 1, 1 / 2, 1 / 4, 1 / 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_heads": 3}, "kv_heads=3 must divide heads=4"),
        (
            {"kv_heads": 2, "sharing": "q=k"},
            "sharing='q=k' shares one projection for queries and keys, so kv_heads=2 must be heads=4",
        ),
    ],
)
def test_head_counts_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        variant(**options)


def ragged(model, tokens, script):
    """Read rows piece by piece, each with its own number of tokens; return the states of each row, in order."""
    cache = KVCache(model.config, len(tokens), like=model.head.weight)
    states = [[] for _ in tokens]
    for counts in script:
        start, width = cache.lengths, max(counts)
        padded = torch.full((len(tokens), width), 4)
        for row, count in enumerate(counts):
            padded[row, :count] = tokens[row, start[row] : start[row] + count]
        read = model(padded, cache=cache, counts=torch.tensor(counts))
        for row, count in enumerate(counts):
            states[row].append(read[row, :count])
    return cache, [torch.cat(its) for its in states]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize(
    "script",
    [
        [[10, 3, 1], [0, 7, 9]],  # longest first; a row that waits at the end of the context
        [[1, 2, 3], [3, 1, 4], [1, 1, 1], [5, 0, 2]],
        [[4, 4, 4], [2, 3, 1], [3, 2, 4], [1, 1, 1]],  # from equal to ragged and back
    ],
    ids=["two", "four", "equal again"],
)
def test_ragged_rows_have_the_states_of_each_alone(options, script):
    model, tokens = variant(**options), torch.randint(5, (3, 10), generator=torch.Generator().manual_seed(2))
    cache, states = ragged(model, tokens, script)
    full = model(tokens)
    assert cache.lengths.tolist() == [len(its) for its in states] == list(map(sum, zip(*script, strict=True)))
    for row, its in enumerate(states):
        torch.testing.assert_close(its, full[row, : len(its)])


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_rows_roll_back_separately(options):
    model, tokens = variant(**options), torch.randint(5, (3, 10), generator=torch.Generator().manual_seed(3))
    cache, _ = ragged(model, tokens, [[8, 6, 7]])
    cache.truncate(torch.tensor([2, 6, 4]))
    parts = model(torch.stack([tokens[0, 2:6], tokens[1, 6:10], tokens[2, 4:8]]), cache=cache)
    full = model(tokens)
    torch.testing.assert_close(parts, torch.stack([full[0, 2:6], full[1, 6:10], full[2, 4:8]]))
    # All rows are at the same position again.
    cache.truncate(6)
    torch.testing.assert_close(model(tokens[:, 6:], cache=cache), full[:, 6:])


@pytest.mark.parametrize("rows", [torch.tensor([2, 0, 2]), torch.tensor([True, False, True])], ids=["index", "mask"])
def test_cache_keeps_some_rows(model, tokens, rows):
    cache, _ = ragged(model, tokens, [[2, 5, 3]])
    cache.keep(rows)
    chosen = tokens[rows]
    at = cache.lengths
    assert at.tolist() == torch.tensor([2, 5, 3])[rows].tolist()
    read = model(chosen[torch.arange(len(chosen)), at][:, None], cache=cache)
    torch.testing.assert_close(read[:, 0], model(chosen)[torch.arange(len(chosen)), at], rtol=1e-4, atol=1e-5)


def test_cache_of_no_rows(model, tokens):
    cache = KVCache(CONFIG, batch_size=3, like=model.head.weight)
    model(tokens, cache=cache)
    cache.keep(torch.zeros(3, dtype=torch.bool))
    assert (cache.length, cache.buffers.shape[2]) == (0, 0)


def test_bad_counts_are_refused_and_change_nothing(model, tokens):
    cache, _ = ragged(model, tokens, [[9, 2, 3]])
    with pytest.raises(ValueError, match="11 positions are more than this model's context of 10"):
        model(tokens[:, :2], cache=cache)
    with pytest.raises(ValueError, match=r"counts=\[3, 0, 0\] must be between 0 and the 2 tokens"):
        model(tokens[:, :2], cache=cache, counts=torch.tensor([3, 0, 0]))
    with pytest.raises(ValueError, match=r"length=3 must be between 0 and the \[9, 2, 3\] tokens"):
        cache.truncate(3)
    with pytest.raises(ValueError, match="counts needs a cache"):
        model(tokens, counts=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="documents cannot be combined with a cache"):
        model(tokens[:, :1], torch.zeros(3, 1, dtype=torch.long), cache)
    # What is refused changes nothing.
    assert cache.lengths.tolist() == [9, 2, 3]
