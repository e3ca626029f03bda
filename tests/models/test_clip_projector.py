"""The label projector: CLIP's zero-shot classifier at first, and a small file that knows what it belongs to."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mlcv.errors import ConfigError
from mlcv.models import CLIPProjector, LoRA
from mlcv.models.open_clip_tower import create_open_clip

NAMES = ["dog", "cat", "potted_plant"]


@pytest.fixture
def projector(tiny_clip):
    name, path = tiny_clip
    return CLIPProjector(name, str(path), NAMES, lora=LoRA(2, 1)).eval()


def stir(projector, rng):
    with torch.no_grad():
        for parameter in projector.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.1)


def test_at_first_it_is_the_zero_shot_classifier_of_clip(tiny_clip, projector, rng):
    import open_clip

    name, path = tiny_clip
    model = open_clip.create_model(name, pretrained=str(path)).eval()
    image = torch.randn(4, 3, 32, 32, generator=rng)
    texts = open_clip.get_tokenizer(name)([f"a photo of a {word.replace('_', ' ')}." for word in NAMES])
    with torch.no_grad():
        expected, _ = model.get_logits(image, texts)
    torch.testing.assert_close(projector(image), expected, rtol=1e-5, atol=1e-4)


def test_only_updates_scale_and_bias_learn_and_are_stored(projector, rng):
    projector(torch.randn(2, 3, 32, 32, generator=rng)).square().sum().backward()
    learned = {name for name, p in projector.named_parameters() if p.grad is not None}
    assert {"log_scale", "bias"} < learned
    assert all(name.endswith(("lora_a", "lora_b", "log_scale", "bias")) for name in learned)
    stored = projector.stored()
    assert len(stored) == len(learned)
    assert sum(tensor.numel() for tensor in stored.values()) < sum(p.numel() for p in projector.parameters()) / 3


def test_ranks_of_zero_leave_a_linear_classifier(tiny_clip):
    name, path = tiny_clip
    plain = CLIPProjector(name, str(path), NAMES, lora=LoRA(0, 0))
    assert set(plain.stored()) == {"log_scale", "bias"}


def test_a_file_gives_the_same_logits_in_another_process(projector, tmp_path, rng, python):
    stir(projector, rng)
    image = torch.randn(2, 3, 32, 32, generator=rng)
    projector.save(tmp_path / "p.safetensors", temperature=2.0)
    torch.save({"image": image, "logits": projector(image).detach()}, tmp_path / "expected.pt")
    code = f"""
import open_clip, torch
from pathlib import Path
from mlcv.models import CLIPProjector, LoRA
open_clip.add_model_config(Path(r"{tmp_path / "tiny-clip.json"}"))
known = torch.load(r"{tmp_path / "expected.pt"}")
loaded = CLIPProjector.from_file(Path(r"{tmp_path / "p.safetensors"}")).eval()
assert loaded.about["class_names"] == {NAMES!r}
torch.testing.assert_close(loaded(known["image"]), known["logits"])
"""
    done = python.run("-c", code)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(path.suffix for path in tmp_path.glob("p.*")) == [".safetensors"]


def test_weights_that_have_moved_are_found_and_others_refused(projector, tiny_clip, tmp_path):
    projector.save(tmp_path / "p.safetensors")
    _, path = tiny_clip
    moved = path.rename(tmp_path / "moved.pt")
    assert CLIPProjector.from_file(tmp_path / "p.safetensors", str(moved)).base == projector.base
    state = torch.load(moved)
    state["visual.conv1.weight"][0, 0, 0, 0] += 1
    torch.save(state, moved)
    with pytest.raises(
        ConfigError, match=r"p.safetensors: trained on other weights of tiny-clip than those of .*moved.pt"
    ):
        CLIPProjector.from_file(tmp_path / "p.safetensors", str(moved))


def test_bad_files_are_named_with_what_is_wrong(projector, tmp_path):
    path = tmp_path / "p.safetensors"
    with pytest.raises(ConfigError, match="no projector at .*p.safetensors"):
        CLIPProjector.from_file(path)
    projector.save(path)
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # not mapped to the file
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match="damaged"):
        CLIPProjector.from_file(path)
    save_file(tensors, path)
    with pytest.raises(ConfigError, match="is no label projector"):
        CLIPProjector.from_file(path)
    with pytest.raises(ConfigError, match="at least 0"):
        LoRA(rank=-1)


def test_a_file_that_lacks_a_tensor_of_its_description_is_refused(projector, tmp_path):
    projector.save(tmp_path / "p.safetensors")
    with safe_open(tmp_path / "p.safetensors", "pt") as file:
        about = file.metadata()
    tensors = projector.stored()
    name = next(name for name in tensors if name.endswith("lora_a"))
    for change in ({}, {name: tensors[name][:, :1].clone()}):
        rest = {key: tensor.clone() for key, tensor in tensors.items() if key != name}
        save_file({**rest, **change}, tmp_path / "p.safetensors", about)
        with pytest.raises(ConfigError, match=rf"1 tensors are not those of its own description, such as {name}"):
            CLIPProjector.from_file(tmp_path / "p.safetensors")


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "a list", "a module"])
def test_a_file_that_holds_no_weights_is_told_in_one_sentence(tiny_clip, tmp_path, kind):
    name, weights = tiny_clip
    path = tmp_path / "other.pt"
    if kind in ("a list", "a module"):
        torch.save([1, 2] if kind == "a list" else torch.nn.Linear(1, 1), path)
    else:
        path.write_bytes({"text": b"class_path: x.Y\n", "empty": b"", "cut": weights.read_bytes()[:5000]}[kind])
    with pytest.raises(ConfigError, match=r"model\.weights: .*other\.pt") as told:
        create_open_clip(name, str(path), "model.weights")
    assert "\n" not in str(told.value)
