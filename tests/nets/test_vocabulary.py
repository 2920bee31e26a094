"""Words that describe: composed by concatenation, learned or heard by T5 and CLAP of a tiny random size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stemwise.errors import ModelError, QueryError
from stemwise.nets.vocabulary import TextConfig, Vocabulary, audio_encoder, text_encoder

KNOWN = ("bass", "drums", "rhodes piano")


@pytest.fixture(scope="module", params=["t5", "clap"])
def pretrained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    """A folder of a text encoder as transformers writes it, with a tokenizer of a few words."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp(request.param)
    words = ["<pad>", "<unk>", "slap", "bass", "drums", "rhodes", "piano", "funk"]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    if request.param == "t5":
        config = transformers.T5Config(
            vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, architectures=["T5EncoderModel"]
        )
        network, text = transformers.T5EncoderModel(config), TextConfig("t5", str(folder), 16, 3)
    else:
        config = transformers.ClapTextConfig(
            vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=20, projection_dim=12, pad_token_id=0,
        )  # fmt: skip
        network, text = transformers.ClapTextModelWithProjection(config), TextConfig("clap", str(folder), 12)
    network.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=16
    ).save_pretrained(folder)
    return text


def test_learned_words_stand_one_after_the_other() -> None:
    vocabulary = Vocabulary(KNOWN, TextConfig(), 4)
    words = vocabulary.described((), ("drums",), ("rhodes piano", "bass"))
    assert words.there.tolist() == [[False, False, True], [True, False, True], [True, True, True]]
    table = vocabulary.table[:, 0]
    torch.testing.assert_close(words.embeddings[1, 0], table[1])
    torch.testing.assert_close(words.embeddings[2, :2], table[[0, 2]])
    torch.testing.assert_close(words.embeddings[:, 2], vocabulary.always.expand(3, -1))
    told = torch.tensor([[False] * 3, [False, True, False], [True, False, True]])
    for one, other in zip(vocabulary(told), words):
        torch.testing.assert_close(one, other)


def test_texts_are_heard_by_a_pretrained_encoder(pretrained: TextConfig) -> None:
    vocabulary = Vocabulary(KNOWN, pretrained, 4)
    words = vocabulary.described(("bass",), ("slap bass", "funk drums"), ("rhodes piano",))
    tokens = pretrained.tokens
    assert words.embeddings.shape == (3, 2 * tokens + 1, 4)
    lengths = [1, 4, 2] if pretrained.encoder == "t5" else [1, 2, 1]
    assert words.there.sum(1).tolist() == [length + 1 for length in lengths]
    expected = text_encoder(pretrained.encoder, pretrained.source)(["slap bass"])
    count = int(expected.there[0].sum())
    torch.testing.assert_close(words.embeddings[1, :count], vocabulary.project(expected.embeddings[0, :count]))
    assert [name for name, _ in vocabulary.named_parameters()] == ["always", "project.weight", "project.bias"]


def test_known_words_need_no_encoder_once_they_were_heard(
    pretrained: TextConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Vocabulary(KNOWN, pretrained, 4)
    told = torch.eye(3, dtype=torch.bool)
    heard = first(told)
    monkeypatch.setattr("stemwise.nets.vocabulary.text_encoder", None)
    again = Vocabulary(KNOWN, pretrained, 4)
    again.load_state_dict(first.state_dict())
    torch.testing.assert_close(again(told).embeddings, heard.embeddings)
    torch.testing.assert_close(again.described(("bass",)).embeddings, first.described(("bass",)).embeddings)


def test_mistakes_are_named(pretrained: TextConfig) -> None:
    with pytest.raises(
        QueryError, match=r"does not know the word 'bas' \(did you mean 'bass'\?\); it knows bass, drums"
    ):
        Vocabulary(KNOWN, TextConfig(), 4).described(["bas"])
    with pytest.raises(QueryError, match="embeddings of width"):
        Vocabulary(KNOWN, TextConfig(pretrained.encoder, pretrained.source, 7), 4)(torch.eye(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="needs source"):
        TextConfig("t5")
    with pytest.raises(ValueError, match="one embedding"):
        TextConfig("clap", "folder", 512, 3)
    with pytest.raises(ModelError, match="hf download nobody/nothing"):
        text_encoder("t5", "nobody/nothing")


def test_clap_hears_mixtures_where_it_reads_their_tags(tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.ClapAudioConfig(
        patch_embeds_hidden_size=8, depths=[1, 1], num_attention_heads=[1, 1], hidden_size=16, spec_size=32, patch_size=4,
        patch_stride=[4, 4], num_mel_bins=8, window_size=4, projection_dim=12,
    )  # fmt: skip
    transformers.ClapAudioModelWithProjection(config).save_pretrained(tmp_path)
    transformers.ClapFeatureExtractor(
        feature_size=8, sampling_rate=8000, max_length_s=1, truncation="rand_trunc"
    ).save_pretrained(tmp_path)
    vocabulary = Vocabulary(KNOWN, TextConfig("clap", str(tmp_path), 12, trained_on="audio"), 4)
    waves = torch.randn(2, 6000)
    words = vocabulary.heard_as(waves, 16_000, torch.tensor([True, False]))
    assert words.there.tolist() == [[True, True], [False, True]]
    found = audio_encoder(str(tmp_path))(waves, 16_000)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert not torch.allclose(found[0], found[1])
    torch.testing.assert_close(words.embeddings[:, 0], vocabulary.project(found))
    with pytest.raises(ValueError, match="needs the encoder clap"):
        TextConfig("t5", "folder", 16, trained_on="audio")
