"""What is written as a diffusers folder is what was trained, for the worker and for PyTorch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmill.worker.checkpoint.weights import load_weights
from promptmill.worker.nn.vae_encoder import VAEEncoder
from promptmill.worker.sdxl.config import ModelConfig
from tools.pocket.nets import bind, fast_norms, first_weights, network_builders
from tools.pocket.text import Texts

_NAMES = ("text_encoder", "text_encoder_2", "unet", "vae")


@pytest.mark.parametrize("name", _NAMES)
def test_the_worker_reads_back_each_weight(untrained: Path, name: str) -> None:
    build = network_builders(ModelConfig.from_folder(untrained))[name]
    device = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    _, state = load_weights(untrained / name, build, dtype=jnp.float32, sharding=device)
    expected = first_weights(build, 7)
    read = dict(nnx.to_flat_state(state))
    assert read.keys() == expected.keys()
    for path, leaf in read.items():
        np.testing.assert_array_equal(np.asarray(leaf[...]), expected[path], err_msg=str(path))


def test_every_caption_word_is_one_token(untrained: Path) -> None:
    first, second = Texts(untrained)(["three red apples in the bottom right of a yellow background"])
    start, end = first.max() - 1, first.max()
    assert first[0, 0] == start
    assert list(first[0]).index(end) == 12
    assert (second[0, 13:] == 0).all()


def test_training_norms_agree_with_the_exact_ones(untrained: Path) -> None:
    build = network_builders(ModelConfig.from_folder(untrained))["vae"]
    latents = jax.random.normal(jax.random.key(0), (2, 16, 16, 4))
    network = bind(build, first_weights(build, 1))
    exact = network(latents)
    with fast_norms():
        fast = network(latents)
    np.testing.assert_allclose(fast, exact, atol=1e-4)


@pytest.mark.slow
def test_encoder_agrees_with_diffusers(untrained: Path) -> None:
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    theirs = diffusers.AutoencoderKL.from_pretrained(untrained / "vae")
    with torch.no_grad():
        expected = theirs.encode(torch.from_numpy(images.transpose(0, 3, 1, 2))).latent_dist
    config = ModelConfig.from_folder(untrained).vae
    mean, log_variance = bind(lambda: VAEEncoder(config), first_weights(lambda: VAEEncoder(config), 7))(
        jnp.asarray(images)
    )
    np.testing.assert_allclose(mean, expected.mean.numpy().transpose(0, 2, 3, 1), atol=2e-5)
    np.testing.assert_allclose(log_variance, expected.logvar.numpy().transpose(0, 2, 3, 1), atol=2e-5)
