"""What every head in `mlcv.models` must do; a new one is tested here from the moment it is exported."""

import functools
import importlib
import inspect
import pkgutil
import re

import pytest
import torch

import mlcv.models
from mlcv.methods import Classifier
from mlcv.methods.checkpoints import load_method
from mlcv.models import Head

HEADS = [
    cls
    for cls in (getattr(mlcv.models, name) for name in mlcv.models.__all__)
    if inspect.isclass(cls) and issubclass(cls, Head) and cls is not Head
]
# Of those whose defaults are as large as the paper's; one that is not here is built with its defaults.
SMALL = {
    "MLDecoderHead": {"width": 32, "hidden": 48},
    "Query2LabelHead": {"width": 32, "hidden": 48},
    "SemanticGraphHead": {"width": 24, "hidden": 20},
}
NO_PAPER = {"LinearHead"}
# Those that an option makes read something else.
VARIANTS = {"LinearHead with a boost": functools.partial(mlcv.models.LinearHead, boost=5.0)}
WIDTH, PATCHES = 12, 16  # a square of patches, which some heads ask for


@pytest.fixture(params=[*HEADS, *VARIANTS], ids=lambda param: getattr(param, "__name__", param))
def head(request, rng):
    torch.manual_seed(int(torch.randint(2**31, (), generator=rng)))
    if request.param in VARIANTS:
        return VARIANTS[request.param]
    return functools.partial(request.param, **SMALL.get(request.param.__name__, {}))


def features(head, batch, rng):
    shape = (batch, WIDTH) if head(WIDTH, 1).features == "pooled" else (batch, PATCHES, WIDTH)
    return torch.randn(shape, generator=rng)


def test_no_head_is_left_out():
    """A head that its package does not export is tested by nobody."""
    found = set()
    for module in pkgutil.iter_modules(mlcv.models.__path__):
        for _, cls in inspect.getmembers(importlib.import_module(f"mlcv.models.{module.name}"), inspect.isclass):
            if issubclass(cls, Head) and cls is not Head and cls.__module__.startswith("mlcv."):
                found.add(cls)
    assert found == set(HEADS)
    assert set(SMALL) | NO_PAPER <= {cls.__name__ for cls in HEADS}


@pytest.mark.parametrize(("batch", "classes"), [(5, 7), (1, 7), (5, 1), (1, 1), (2, 130)])
def test_logits_have_a_row_an_image_and_a_column_a_class(head, rng, batch, classes):
    for module in (head(WIDTH, classes), head(WIDTH, classes).eval()):
        logits = module(features(head, batch, rng))
        assert logits.shape == (batch, classes)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


def test_an_images_logits_are_its_own_whatever_stands_beside_it(head, rng):
    module = head(WIDTH, 6).eval()
    given = features(head, 5, rng)
    logits, order = module(given), torch.randperm(5, generator=rng)
    torch.testing.assert_close(module(given[order]), logits[order])
    for row in range(5):
        torch.testing.assert_close(module(given[row : row + 1])[0], logits[row])
    assert (logits - logits[:1])[1:].abs().amax(dim=1).min() > 0  # and they are of the image


def test_each_class_has_logits_of_its_own(head, rng):
    logits = head(WIDTH, 6).eval()(features(head, 5, rng))
    assert torch.pdist(logits.T).min() > 0


@pytest.mark.parametrize("classes", [1, 6])
@pytest.mark.parametrize("is_training", [True, False])
def test_the_gradient_reaches_every_parameter_and_the_features(head, rng, classes, is_training):
    module = head(WIDTH, classes).train(is_training)
    given = features(head, 4, rng).requires_grad_()
    logits = module(given)
    (logits * torch.randn(logits.shape, generator=rng)).sum().backward()
    without = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert (given.grad.flatten(1).abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.1)])
def test_works_in_the_precision_that_it_is_put_into(head, rng, dtype, tolerance):
    module, given = head(WIDTH, 6).eval(), features(head, 4, rng)
    expected = module(given)
    logits = module.to(dtype)(given.to(dtype))
    assert logits.dtype == dtype
    error = (logits.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1)
    assert error < tolerance
    given = given.to(dtype).requires_grad_()
    module(given).sum().backward()
    assert given.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_says_what_it_reads_in_the_class_and_in_its_documentation(head):
    cls = head.func
    assert cls.features in ("pooled", "patches")
    shape = {"pooled": "pooled (B, D)", "patches": "patches (B, N, D)"}[cls.features]
    assert re.search(rf"Shape:\n +{re.escape(shape)} .*to logits \(B, C\)\.", cls.__doc__)


def test_is_documented_with_every_argument_and_its_paper(head):
    cls = head.func
    names = list(inspect.signature(cls).parameters)
    assert names[:2] == ["num_features", "num_classes"]
    assert [name for name in names if not re.search(rf"^ {{8}}{name}: \S", cls.__doc__, re.MULTILINE)] == []
    assert all(p.default is not p.empty for p in list(inspect.signature(cls).parameters.values())[2:])
    if cls.__name__ not in NO_PAPER:
        assert re.search(r"arXiv \d{4}\.\d{5}", importlib.import_module(cls.__module__).__doc__ + cls.__doc__)


def other_options(cls):
    """Every optional number that is not whole, moved a little from its default."""
    options = list(inspect.signature(cls).parameters.values())[2:]
    return {option.name: option.default + 0.125 for option in options if isinstance(option.default, float)}


def test_every_option_that_is_no_whole_number_changes_what_is_learned(head, rng):
    cls, logits, seed = head.func, {}, int(torch.randint(2**31, (), generator=rng))
    for name, value in [("", None), *other_options(cls).items()]:
        torch.manual_seed(0)
        module = cls(WIDTH, 6, **{**head.keywords, **({name: value} if name else {})})
        torch.manual_seed(1)
        given = features(lambda *_, read=module: read, 4, torch.Generator().manual_seed(seed))
        logits[name] = module.train()(given)
    assert [name for name in logits if name and torch.equal(logits[name], logits[""])] == []


def test_a_checkpoint_builds_it_again_with_its_options_and_its_weights(head, rng, tmp_path):
    """A method is given a class of heads, or a partial of one, and a checkpoint names that as plain data."""
    options = {**head.keywords, **other_options(head.func)}
    method = Classifier("test_resnet", 3, head=functools.partial(head.func, **options))
    named = {"class_path": f"{head.func.__module__}.{head.func.__qualname__}", "init_args": options}
    assert method.hparams["head"] == named
    torch.save({"hyper_parameters": dict(method.hparams), "state_dict": method.state_dict()}, tmp_path / "a.ckpt")
    again = load_method(tmp_path / "a.ckpt", "--ckpt_path")
    assert type(again.head) is head.func
    images = torch.randn(2, 3, 128, 128, generator=rng)
    for is_training in (False, True):  # in training, what the options say of dropout shows too
        logits = []
        for one in (method, again):
            torch.manual_seed(0)
            logits.append(one.train(is_training)(images))
        assert torch.equal(*logits)
