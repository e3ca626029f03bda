"""CLIPPretraining: its sentences, its objective, and that its weights are a CLIP for everything else."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from mlcv import CLIPPretraining, Optim
from mlcv.errors import ConfigError
from mlcv.models import Backbone, CLIPProjector, LoRA
from tests.methods.test_base import fit
from tests.methods.test_label_projector import DIGITS
from tests.methods.test_patch_ct import step


def build(name, **options):
    torch.manual_seed(0)
    return CLIPPretraining(f"open_clip:{name}", 10, class_names=DIGITS, image_size=32, **options)


def test_a_sentence_names_what_is_present_in_any_order(tiny_clip):
    module = build(tiny_clip[0], captions=["see {}.", "{}!"])
    target = torch.zeros(10)
    assert module._caption(target) is None
    assert module._caption(target - 1) is None  # all unknown
    target[[3, 7, 9]] = 1
    target[4] = -1
    said = {module._caption(target) for _ in range(200)}
    assert len(said) == 12  # six orders in two sentences
    assert {"see 3, 7 and 9.", "9, 3 and 7!"} < said
    target[[3, 9]] = 0
    assert {module._caption(target) for _ in range(50)} == {"see 7.", "7!"}


def test_the_objective_is_the_symmetric_cross_entropy_of_pairs_with_a_sentence(tiny_clip, rng):
    module = build(tiny_clip[0], captions=["{}"]).eval()
    target = torch.zeros(5, 10)
    target[[0, 1, 3, 4], [2, 5, 2, 8]] = 1  # the third has none
    batch = {"image": torch.randn(5, 3, 32, 32, generator=rng), "target": target, "index": torch.arange(5)}
    loss, _ = step(module, batch)
    kept = [0, 1, 3, 4]
    image = module.clip.encode_image(batch["image"][kept], normalize=True)
    text = module.clip.encode_text(module.tokenizer(["2", "5", "2", "8"]), normalize=True)
    logits = module.clip.logit_scale.exp() * image @ text.T
    expected = (cross_entropy(logits, torch.arange(4)) + cross_entropy(logits.T, torch.arange(4))) / 2
    torch.testing.assert_close(loss, expected)
    batch["target"] = torch.zeros(5, 10)
    loss, _ = step(module, batch)
    loss.backward()
    assert loss == 0


def test_its_weights_are_a_clip_whose_zero_shot_classifier_is_its_own(tmp_path):
    module = build("digits-clip", prompts=["a {}", "the {}"], optim=Optim(lr=1e-3))
    fit(module, tmp_path)
    path = tmp_path / "clip.pt"
    image = torch.randn(3, 3, 32, 32)
    logits = module.eval()(image)
    projector = CLIPProjector("digits-clip", str(path), DIGITS, ["a {}", "the {}"], lora=LoRA(1, 1), image_size=32)
    torch.testing.assert_close(projector.eval()(image), logits, rtol=1e-4, atol=1e-4)
    probs = module.probabilities(logits)
    assert ((probs > 0) & (probs < 1)).all()
    assert torch.equal(probs.argsort(), logits.argsort())
    assert module.clip.logit_scale.exp() <= 100.001


def test_names_that_are_no_clip_and_sentences_without_a_place_are_refused(tiny_clip):
    with pytest.raises(ConfigError, match="a CLIP is needed"):
        CLIPPretraining("resnet18", 10)
    with pytest.raises(ConfigError, match="needs one {}"):
        build(tiny_clip[0], captions=["a photo"])
    with pytest.raises(ConfigError, match="no vision transformer"):
        Backbone("open_clip:digits-clip")
