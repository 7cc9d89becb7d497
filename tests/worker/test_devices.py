"""Work spread over eight virtual devices."""

import jax
import jax.numpy as jnp
import numpy as np

from promptmill.worker.devices import Devices


def test_each_device_has_all_weights_and_its_own_part_of_the_batch():
    devices = Devices.of()
    assert (devices.count, devices.platform) == (8, "cpu")
    weights = jax.device_put(jnp.arange(3.0), devices.whole)
    batch = devices.put(np.arange(48.0).reshape(16, 3))
    assert {shard.data.shape for shard in weights.addressable_shards} == {(3,)}
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 3)}
    seen = []

    def function(w: jax.Array, b: jax.Array) -> jax.Array:
        seen.append(b.shape)
        return w[None] * b

    run = devices.compile(function, weights, jax.ShapeDtypeStruct((16, 3), jnp.float32, sharding=devices.split))
    result = run(weights, batch)
    assert seen == [(2, 3)], "traced once, for one device's part"
    assert result.sharding == devices.split
    np.testing.assert_array_equal(result, np.arange(3.0) * np.arange(48.0).reshape(16, 3))


def test_some_devices_are_a_host_of_fewer():
    devices = Devices.of(jax.local_devices()[:2])
    assert devices.count == 2
    assert {shard.device for shard in devices.put(np.zeros((2, 1))).addressable_shards} == set(jax.local_devices()[:2])
