"""Label embeddings from arrays, word vectors and text encoders."""

import numpy as np
import pytest
import torch

from mlcv.data.voc import VOC_CLASSES
from mlcv.errors import ConfigError
from mlcv.models import label_embeddings
from mlcv.models.label_embeddings import read_label_embeddings

WORDS = {
    "dining": [1, 0],
    "table": [0, 1],
    "dog": [2, 2],
    "hot": [4, 0],
    "hot_dog": [9, 9],
    "tv": [3, 3],
    "monitor": [5, 5],
}


@pytest.fixture
def vectors(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{word} {' '.join(map(str, numbers))}\n" for word, numbers in WORDS.items()))
    return path


def test_word_vectors_are_found_for_words_parts_and_compounds(vectors):
    names = ["Dog", "hot dog", "dining table", "diningtable", "tvmonitor", "dog table"]
    expected = [[2, 2], [9, 9], [0.5, 0.5], [0.5, 0.5], [4, 4], [1, 1.5]]
    found = read_label_embeddings(str(vectors), names)
    assert found.dtype == torch.float32
    assert found.tolist() == expected


def test_says_which_class_has_no_vector(vectors):
    with pytest.raises(ConfigError, match=r"words\.txt has no vector for the class 'zebra'"):
        read_label_embeddings(str(vectors), ["dog", "zebra"])


def test_says_which_line_of_word_vectors_is_broken(vectors):
    vectors.write_text("dog 1 2\ncat 1 x\n")
    with pytest.raises(ConfigError, match=r"words\.txt:2"):
        read_label_embeddings(str(vectors), ["dog", "cat"])
    vectors.write_text("dog 1 2\ncat 1\n")
    with pytest.raises(ConfigError, match="several lengths"):
        read_label_embeddings(str(vectors), ["dog", "cat"])


def test_an_array_has_a_row_a_class(tmp_path):
    path = tmp_path / "vectors.npy"
    array = np.arange(6.0).reshape(3, 2)
    np.save(path, array)
    assert read_label_embeddings(str(path), "abc").tolist() == array.tolist()
    with pytest.raises(ConfigError, match=r"has shape \(3, 2\), expected \(2, E\)"):
        read_label_embeddings(str(path), "ab")
    np.save(path, array * np.nan)
    with pytest.raises(ConfigError, match="not finite"):
        read_label_embeddings(str(path), "abc")
    np.save(path, np.array([print]), allow_pickle=True)
    with pytest.raises(ConfigError, match="no array of numbers"):
        read_label_embeddings(str(path), "a")


def test_the_published_vectors_of_voc_and_coco_are_read(shared_data):
    folder = shared_data / "label_vectors"
    voc = read_label_embeddings(str(folder / "voc_devkit_VOC2007_voc07_vector.npy"), VOC_CLASSES)
    assert voc.shape == (20, 300)
    names = {name: torch.nn.functional.normalize(row, dim=0) for name, row in zip(VOC_CLASSES, voc, strict=True)}
    assert names["cat"] @ names["dog"] > names["cat"] @ names["aeroplane"]
    assert read_label_embeddings(str(folder / "coco_vectors.npy"), [str(c) for c in range(80)]).shape == (80, 300)


def test_says_that_a_file_is_missing_and_what_else_there_is():
    with pytest.raises(ConfigError, match="no file nowhere.txt"):
        read_label_embeddings("nowhere.txt", ["dog"])


@pytest.fixture
def text_encoder(tiny_clip):
    import open_clip

    name, path = tiny_clip
    model = open_clip.create_model(name, pretrained=str(path))
    return model.eval(), open_clip.get_tokenizer(name), f"open_clip:{name}:{path}"


def test_a_text_encoder_gives_the_unit_vectors_of_its_prompts(text_encoder):
    model, tokenizer, source = text_encoder
    found = read_label_embeddings(source, ["dog", "potted_plant"])
    with torch.no_grad():
        expected = model.encode_text(tokenizer(["a photo of a dog.", "a photo of a potted plant."]))
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True))
    assert not found.requires_grad


def test_several_prompts_give_the_mean_direction_and_the_second_start_reads_no_model(text_encoder, monkeypatch):
    model, tokenizer, source = text_encoder
    prompts, random = ["a {}.", "{} in a photo"], torch.get_rng_state()
    found = read_label_embeddings(source, ["dog", "cat"], prompts)
    with torch.no_grad():
        texts = [[prompt.format(name) for prompt in prompts] for name in ("dog", "cat")]
        unit = [torch.nn.functional.normalize(model.encode_text(tokenizer(pair)), dim=1).sum(dim=0) for pair in texts]
    torch.testing.assert_close(found, torch.stack([vector / vector.norm() for vector in unit]))
    assert torch.equal(torch.get_rng_state(), random)  # with or without the cache, a run draws the same numbers
    monkeypatch.setattr(label_embeddings, "create_open_clip", lambda *_: pytest.fail("the cache was not used"))
    assert torch.equal(read_label_embeddings(source, ["dog", "cat"], prompts), found)
    with pytest.raises(ConfigError, match="each needs one {} where the name goes"):
        read_label_embeddings(source, ["dog"], ["a photo"])


@pytest.mark.parametrize("source", ["open_clip:RN50", "open_clip:", "open_clip::openai"])
def test_a_text_encoder_needs_a_model_and_weights(source):
    with pytest.raises(ConfigError, match="write open_clip:<model>:<pretrained tag or file>"):
        read_label_embeddings(source, ["dog"])


@pytest.mark.parametrize("source", ["open_clip:No-Such:openai", "open_clip:RN50:nonsense"])
def test_says_which_text_encoder_cannot_be_had(source):
    with pytest.raises(ConfigError, match=source):
        read_label_embeddings(source, ["dog"])
